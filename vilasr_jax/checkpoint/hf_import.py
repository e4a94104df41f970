"""Weights of a Hugging Face folder -> ours."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from vilasr_jax.checkpoint.folders import check_reachable
from vilasr_jax.checkpoint.hf_config import check_preprocessor, config_from_hf, read_json, ties
from vilasr_jax.checkpoint.hf_layout import PublishedWeights, hf_tensors
from vilasr_jax.checkpoint.safetensors_files import StoredTensor, stored_tensors
from vilasr_jax.checkpoint.sharded_import import load_sharded
from vilasr_jax.errors import CheckpointError
from vilasr_jax.models import Model, ModelConfig, family_of
from vilasr_jax.models.hf_tensors import HFTensor
from vilasr_jax.models.params import abstract

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def import_hf(
    src_dir: epath.PathLike, *, param_dtype: str | None = None, mesh: Mesh | None = None, **overrides
) -> tuple[ModelConfig, nnx.State]:
    """Reads config.json and the safetensors of a model folder.

    Reads both config layouts, all key prefixes, one file or shards with an index, and BF16, F16 and F32.
    Each of our weights is filled tensor by tensor, so that only one tensor is in memory besides the result;
    with a mesh every host reads an equal part of the rows, and no device holds more than its own part.

    Args:
      src_dir: the folder, local or `gs://`.
      param_dtype: dtype of our weights; None: the stored one, of mixed ones that of config.json.
      mesh: of the devices of all hosts, which must all call this; None: one device.
      **overrides: fields of `ModelConfig` that are not sizes, such as dtype, remat or attention.

    Returns:
      The config and the weights, as `nnx.split(model)[1]` of a model of that config.

    Raises:
      CheckpointError: a file or tensor missing, unexpected, of another shape, cut off, not finite or too
        large for the dtype, by name; or images that are cut or normalised otherwise than here.
    """
    config, _, stored = open_hf(src_dir, param_dtype=param_dtype, **overrides)
    if absent := [name for name in TOKENIZER_FILES if not (epath.Path(src_dir) / name).exists()]:
        logging.warning("%s: no %s; weights and config are read without", src_dir, ", ".join(absent))
    return config, load_sharded(published_weights(config, stored), mesh)


def published_weights(config: ModelConfig, stored: Mapping[str, StoredTensor]) -> PublishedWeights:
    """The weights of a folder opened with `open_hf`, to be read block by block."""
    dtype = jnp.dtype(config.param_dtype)
    return PublishedWeights(config, lambda tensor, rows: stored[tensor.key].read(rows, dtype))


def load_hf(src_dir: epath.PathLike, **kwargs) -> Model:
    """The model in a Hugging Face folder; arguments and errors as in `import_hf`."""
    config, params = import_hf(src_dir, **kwargs)
    return nnx.merge(abstract(config)[0], params)


def open_hf(
    src_dir: epath.PathLike, *, param_dtype: str | None = None, **overrides
) -> tuple[ModelConfig, list[HFTensor], dict[str, StoredTensor]]:
    """Checks names, shapes and file sizes of a model folder without reading a weight.

    Returns:
      The config, the abstract weights of that config, and where each published name is stored.

    Raises:
      CheckpointError: as `import_hf`, except for values that are not finite.
    """
    check_reachable(src_dir)
    src = epath.Path(src_dir)
    if not src.is_dir():
        raise CheckpointError(f"{src}: no such folder; give a Hugging Face model folder")
    stored: dict[str, StoredTensor] = {}
    said = read_json(src / "config.json")
    config = config_from_hf(said, where=str(src / "config.json"), **overrides)
    family, buffers = family_of(config), 0
    check_preprocessor(src, family.images)
    for key, tensor in stored_tensors(src).items():
        if key.endswith(".inv_freq"):
            buffers += 1  # saved by older versions of transformers; computed, not read
            continue
        name = family.published_name(key)
        if name in stored:
            raise CheckpointError(
                f"{src}: tensor {name!r} is there twice, as {key!r} and {stored[name].name!r}"
            )
        stored[name] = tensor
    if buffers:
        logging.warning("%s: %d inv_freq buffers are left out; the model computes them", src, buffers)
    if len(set(ties(said))) > 1:  # contradictory: decided by whether a head is stored
        config = config.replace(tie_word_embeddings=family.head_key not in stored)
    config = config.replace(param_dtype=param_dtype or _common_dtype(src, said, stored))
    wanted = hf_tensors(config)
    _check(src, config, wanted, stored)
    return config, wanted, stored


def _common_dtype(src, said: Mapping[str, Any], stored: Mapping[str, StoredTensor]) -> str:
    """The dtype of the tensors; of mixed ones that which config.json names, else that of the most values."""
    values: Counter[str] = Counter()
    for tensor in stored.values():
        values[str(tensor.dtype)] += math.prod(tensor.shape)
    if len(values) == 1:
        return next(iter(values))
    text = said.get("text_config") or {}
    named = said.get("torch_dtype") or said.get("dtype") or text.get("torch_dtype") or text.get("dtype")
    chosen = str(named) if named in values else max(sorted(values), key=values.__getitem__)
    logging.warning(
        "%s: tensors of mixed dtypes (%s) are read as %s; param_dtype chooses another",
        src,
        ", ".join(sorted(values)),
        chosen,
    )
    return chosen


def _check(src, config, wanted, stored):
    expected = {tensor.key: tensor.shape for tensor in wanted}
    missing = [key for key in expected if key not in stored]
    unexpected = sorted(set(stored) - set(expected))
    head, table = family_of(config).head_key, family_of(config).table_key
    if config.tie_word_embeddings and head in unexpected and table not in missing:
        # Some tools write the tied head once more. That is fine as long as it says the same.
        if np.array_equal(stored[head].read(), stored[table].read()):
            unexpected.remove(head)
    for kind, keys in (("missing", missing), ("unexpected", unexpected)):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise CheckpointError(f"{src}: tensor {keys[0]!r}{more} {kind} for the model in config.json")
    for key, shape in expected.items():
        if stored[key].shape != shape:
            raise CheckpointError(
                f"{stored[key].file}: tensor {key!r} has shape {stored[key].shape}, config.json wants {shape}"
            )
