"""The factors of LoRA -> a folder in PEFT's format, which `peft.PeftModel.from_pretrained` loads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath
from safetensors.numpy import save

from vilasr_jax.checkpoint.folders import complete_folder
from vilasr_jax.checkpoint.hf_layout import hf_tensors
from vilasr_jax.checkpoint.hub import SCHEME
from vilasr_jax.files import write_json
from vilasr_jax.models import ModelConfig, family_of

_PREFIX = "base_model.model."  # of names in the file, before those of transformers 5


def export_peft(
    factors: Mapping[str, Mapping[str, Any]],
    alpha: float,
    config: ModelConfig,
    dst: epath.PathLike,
    base: str = "",
) -> None:
    """Writes adapter_config.json and adapter_model.safetensors.

    Args:
      factors: by kernel ("language_model/layers/q_proj/kernel"), {"a": [l, in, rank], "b": [l, rank, out]}.
      alpha: the addition is A B times alpha / rank.
      config: of the model that was adapted.
      dst: folder to make; appears when complete.
      base: the address of the adapted weights, for people and for PEFT's `AutoPeftModel`, which loads a
        Hugging Face folder or a model of the hub.

    Raises:
      CheckpointError: the folder exists or can't be written.
    """
    pairs = {name.removesuffix("/value"): pair for name, pair in factors.items()}
    nested_name = family_of(config).nested_name
    values: dict[str, np.ndarray] = {}
    adapted: dict[str, None] = {}  # names of modules below a layer, in the order of the network
    for tensor in hf_tensors(config):
        if tensor.path not in pairs:
            continue
        module = nested_name(tensor.key).removesuffix(".weight")
        adapted[module.split(f".layers.{tensor.layer}.")[1]] = None
        for key, letter in (("a", "A"), ("b", "B")):  # torch's matrices are transposed: [out, in]
            factor = np.asarray(pairs[tensor.path][key][tensor.layer], np.float32)
            values[f"{_PREFIX}{module}.lora_{letter}.weight"] = np.ascontiguousarray(factor.T)
    rank = next(iter(pairs.values()))["a"].shape[-1]
    name, _, revision = (
        base.removeprefix(SCHEME).partition("@") if base.startswith(SCHEME) else (base, "", "")
    )
    settings = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": name,
        "revision": revision or None,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        # A pattern: the vision tower has modules of the same names, in blocks instead of layers.
        "target_modules": rf".*\.layers\.\d+\.({'|'.join(map(re.escape, adapted))})",
    }
    with complete_folder(dst) as folder:
        write_json(folder / "adapter_config.json", settings)
        (folder / "adapter_model.safetensors").write_bytes(save(values, metadata={"format": "pt"}))
