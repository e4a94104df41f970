"""Our weights -> a Hugging Face folder that transformers (and what reads its format) loads."""

from collections.abc import Mapping
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np
from etils import epath

from vilasr_jax.checkpoint.folders import complete_folder
from vilasr_jax.checkpoint.hf_config import config_to_hf, generation_config, preprocessor_config
from vilasr_jax.checkpoint.hf_layout import abstract_params, hf_tensors, named_leaves
from vilasr_jax.checkpoint.safetensors_files import MAX_SHARD_BYTES, all_finite, write_safetensors
from vilasr_jax.errors import CheckpointError
from vilasr_jax.files import write_json
from vilasr_jax.models import ModelConfig, family_of


class SavesTokenizer(Protocol):
    """A tokenizer that can write its files."""

    def save(self, path) -> Any:
        """Writes tokenizer.json, tokenizer_config.json and the chat template into a folder."""


def export_hf(
    params,
    config: ModelConfig,
    dst_dir: epath.PathLike,
    *,
    tokenizer: SavesTokenizer | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    layout: str = "flat",
    dtype: str | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    overwrite: bool = False,
    extra_files: Mapping[str, Any] | None = None,
) -> None:
    """Writes a model folder: weights, config, generation and image processor settings, tokenizer.

    The files are config.json, generation_config.json, preprocessor_config.json, safetensors (with an index
    when there are several) and the tokenizer's own. The folder appears when everything is in it; one tensor
    at a time is copied to the host.

    Args:
      params: the model's weights, an NNX state or (nested or path-named) dicts of arrays.
      config: their config.
      dst_dir: folder to make, local or `gs://`.
      tokenizer: writes its own files; without one the folder has none.
      min_pixels: least area of an image after resizing, for the image processor; None: the family's.
      max_pixels: greatest; None: the family's.
      layout: "flat" (config and key names as published) or "nested" (as transformers 5 has them in memory).
      dtype: of the written weights; None: as it is.
      max_shard_bytes: largest weight file.
      overwrite: replace an existing folder.
      extra_files: more files to write by name: a text as it is, other values as JSON.

    Raises:
      CheckpointError: the folder exists or can't be written, or a weight is missing, misshapen or not finite.
    """
    images = family_of(config).images
    min_pixels = images.min_pixels if min_pixels is None else min_pixels
    max_pixels = images.max_pixels if max_pixels is None else max_pixels
    leaves = named_leaves(params)
    wanted = hf_tensors(config)
    check_shapes({name: leaf.shape for name, leaf in leaves.items()}, config)
    nested_name = family_of(config).nested_name
    name_of = {(nested_name(t.key) if layout == "nested" else t.key): t for t in wanted}
    out_dtype = {t.path: jnp.dtype(dtype or leaves[t.path].dtype) for t in wanted}

    def values(name):
        tensor = name_of[name]
        leaf = leaves[tensor.path]
        array = np.asarray(leaf if tensor.layer is None else leaf[tensor.layer])
        array = tensor.to_hf(array).astype(out_dtype[tensor.path], copy=False)
        if not all_finite(np.ascontiguousarray(array)):
            raise CheckpointError(
                f"weight {tensor.path!r} holds values that are not finite; nothing was exported"
            )
        return array

    with complete_folder(dst_dir, overwrite=overwrite) as folder:
        write_json(folder / "config.json", config_to_hf(config, layout=layout, dtype=dtype))
        write_json(folder / "generation_config.json", generation_config(config))
        write_json(folder / "preprocessor_config.json", preprocessor_config(config, min_pixels, max_pixels))
        for name, value in (extra_files or {}).items():
            if isinstance(value, str):
                (folder / name).write_text(value)
            else:
                write_json(folder / name, value)
        if tokenizer is not None:
            tokenizer.save(folder)
        specs = [(name, out_dtype[t.path], t.shape) for name, t in name_of.items()]
        write_safetensors(folder, specs, values, max_shard_bytes=max_shard_bytes)


def check_shapes(shapes: Mapping[str, tuple[int, ...]], config: ModelConfig, *, where: str = "") -> None:
    """Raises CheckpointError unless `shapes` (by weight) are exactly those of a model of `config`."""
    expected = {name: tuple(leaf.shape) for name, leaf in named_leaves(abstract_params(config)).items()}
    for name, shape in expected.items():
        if name not in shapes:
            raise CheckpointError(f"{where}weight {name!r} is missing for this model config")
        if tuple(shapes[name]) != shape:
            raise CheckpointError(
                f"{where}weight {name!r} has shape {tuple(shapes[name])}, the config asks for {shape}"
            )
    for name in shapes:
        if name not in expected:
            raise CheckpointError(f"{where}weight {name!r} is unexpected for this model config")
