"""Hugging Face folder <-> Orbax checkpoint, a tensor at a time, so that any size converts in little memory.

The Orbax side is a checkpoint directory with one step (0) and its item "params", and beside it config.json
and the tokenizer's and processor's files, so that it converts back alone:

    dst/0/params/...   dst/config.json   dst/tokenizer.json ...
"""

import contextlib
import itertools
import math
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath

from vilasr_jax.checkpoint.array_files import (
    CHUNK_BYTES,
    open_array,
    save_skeleton,
    saved_shapes,
    weight_folder,
)
from vilasr_jax.checkpoint.folders import check_free, complete_folder
from vilasr_jax.checkpoint.hf_config import config_from_hf, config_to_hf, generation_config, read_json
from vilasr_jax.checkpoint.hf_export import check_shapes
from vilasr_jax.checkpoint.hf_import import open_hf
from vilasr_jax.checkpoint.hf_layout import (
    HFTensor,
    abstract_params,
    hf_tensors,
    named_leaves,
    nested_name,
    transposed,
)
from vilasr_jax.checkpoint.safetensors_files import MAX_SHARD_BYTES, all_finite, write_safetensors
from vilasr_jax.errors import CheckpointError
from vilasr_jax.files import write_json
from vilasr_jax.models.qwen2_5_vl import ModelConfig

# Text files beside the weights that travel with them.
COMPANIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
)


def convert_from_hf(
    src: epath.PathLike, dst: epath.PathLike, *, param_dtype: str | None = None, overwrite: bool = False
) -> ModelConfig:
    """Writes the weights of a Hugging Face folder as an Orbax checkpoint directory.

    Args:
      src: folder with config.json and safetensors, local or `gs://`.
      dst: directory to make; appears when complete.
      param_dtype: dtype of the written weights; None keeps the stored one.
      overwrite: replace an existing directory.

    Returns:
      The model's config.

    Raises:
      CheckpointError: as `import_hf`, or the destination exists or can't be written.
    """
    check_free(dst, overwrite=overwrite)
    config, wanted, stored = open_hf(src, param_dtype=param_dtype)
    dtype = jnp.dtype(config.param_dtype)
    abstract = abstract_params(config)
    shapes = {name: leaf.shape for name, leaf in named_leaves(abstract).items()}
    with complete_folder(dst, overwrite=overwrite) as folder:
        arrays = save_skeleton(folder, abstract)
        for path, group in itertools.groupby(_by_weight(wanted), key=lambda tensor: tensor.path):
            tensors = list(group)
            new = (shapes[path], dtype, _split_axis(tensors[0]))
            with _named_failure(dst):
                target = open_array(arrays, path, new)
            _fill(dst, target, tensors, stored, dtype)
        write_json(folder / "config.json", config_to_hf(config))
        _copy_companions(epath.Path(src), folder)
    return config


def convert_to_hf(
    src: epath.PathLike,
    dst: epath.PathLike,
    *,
    config: ModelConfig | None = None,
    step: int | None = None,
    layout: str = "flat",
    max_shard_bytes: int = MAX_SHARD_BYTES,
    overwrite: bool = False,
) -> ModelConfig:
    """Writes the weights of an Orbax checkpoint directory as a Hugging Face folder.

    Args:
      src: checkpoint directory with an item "params", local or `gs://`.
      dst: folder to make; appears when complete.
      config: the model's; None reads config.json in `src`.
      step: None for the newest.
      layout: "flat" or "nested", as in `export_hf`.
      max_shard_bytes: largest weight file.
      overwrite: replace an existing folder.

    Returns:
      The model's config.

    Raises:
      CheckpointError: no checkpoint or config there, a weight missing, unexpected, misshapen or not finite,
        or the destination exists or can't be written.
    """
    check_free(dst, overwrite=overwrite)
    src = epath.Path(src)
    arrays = weight_folder(src, step)
    if config is None:
        config = config_from_hf(read_json(src / "config.json"), where=str(src / "config.json"))
    saved, wanted = saved_shapes(arrays), hf_tensors(config)
    check_shapes({name: shape for name, (shape, _) in saved.items()}, config, where=f"{arrays}: ")
    name_of = {(nested_name(t.key) if layout == "nested" else t.key): t for t in _by_weight(wanted)}
    reader = _Reader(arrays)
    with complete_folder(dst, overwrite=overwrite) as folder:
        dtypes = sorted({str(dtype) for _, dtype in saved.values()})
        write_json(
            folder / "config.json",
            config_to_hf(config, layout=layout, dtype=dtypes[0] if len(dtypes) == 1 else "float32"),
        )
        write_json(folder / "generation_config.json", generation_config(config))
        _copy_companions(src, folder)
        specs = [(name, saved[t.path][1], t.shape) for name, t in name_of.items()]
        write_safetensors(
            folder, specs, lambda name: reader.blocks(name_of[name]), max_shard_bytes=max_shard_bytes
        )
    return config


class _Reader:
    """Published values out of a checkpoint; the weight in hand is kept when its chunks span layers."""

    def __init__(self, folder: epath.Path):
        self.folder, self.path, self.source = folder, "", None

    def blocks(self, tensor: HFTensor) -> Iterator[np.ndarray]:
        if tensor.path != self.path:
            self.path, self.source = tensor.path, open_array(self.folder, tensor.path)
            if tensor.layer is not None and self.source.chunk_layout.read_chunk.shape[0] > 1:
                self.source = self.source.read().result()  # as training saves it: one chunk, all layers
        if tensor.layer is None and len(tensor.shape) == 2:
            rows = _rows(tensor.shape, self.source.dtype.numpy_dtype)
            axis = _split_axis(tensor)
            pieces = (self.source[s] if axis == 0 else self.source[:, s] for s in rows)
        else:
            pieces = iter([self.source if tensor.layer is None else self.source[tensor.layer]])
        for piece in pieces:
            array = piece if isinstance(piece, np.ndarray) else piece.read().result()
            is_matrix = len(tensor.shape) == 2 and _kernel(tensor)
            array = transposed(array) if is_matrix else np.ascontiguousarray(tensor.to_hf(array))
            if not all_finite(array):
                raise CheckpointError(
                    f"{self.folder}: weight {tensor.path!r} holds values that are not finite"
                )
            yield array


def _fill(dst, target, tensors: list[HFTensor], stored, dtype) -> None:
    """Writes the published tensors that make up one weight, a chunk at a time."""
    first = tensors[0]
    if first.layer is not None:
        count = target.chunk_layout.write_chunk.shape[0]
        for start in range(0, len(tensors), count):
            layers = tensors[start : start + count]
            values = np.empty((len(layers), *target.shape[1:]), dtype)
            for row, tensor in zip(values, layers, strict=True):
                row[...] = tensor.to_ours(stored[tensor.key].read())
            with _named_failure(dst):
                target[start : start + len(layers)].write(values).result()
    elif len(first.shape) == 2:
        for rows in _rows(first.shape, dtype):
            values = stored[first.key].read(rows).astype(dtype, copy=False)
            place, values = (
                (target[:, rows], transposed(values)) if _kernel(first) else (target[rows], values)
            )
            with _named_failure(dst):
                place.write(values).result()
    else:
        with _named_failure(dst):
            target.write(first.to_ours(stored[first.key].read()).astype(dtype, copy=False)).result()


@contextlib.contextmanager
def _named_failure(dst):
    """TensorStore says ValueError for a full disk and the like."""
    try:
        yield
    except ValueError as error:
        reason = str(error).splitlines()[0][:200]
        raise CheckpointError(f"{dst}: could not be written ({reason}); nothing was left there") from error


def _by_weight(tensors: list[HFTensor]) -> list[HFTensor]:
    return sorted(tensors, key=lambda t: (t.path, t.layer or 0))


def _kernel(tensor: HFTensor) -> bool:
    return tensor.path.endswith("/kernel")


def _split_axis(tensor: HFTensor) -> int:
    """The axis of our weight that is cut into chunks: the layers, or the published tensor's rows."""
    return 1 if tensor.layer is None and _kernel(tensor) and len(tensor.shape) == 2 else 0


def _rows(shape: tuple[int, ...], dtype) -> list[slice]:
    """Blocks of rows as large as a chunk."""
    count = max(1, CHUNK_BYTES * shape[0] // (math.prod(shape) * np.dtype(dtype).itemsize))
    return [slice(start, min(start + count, shape[0])) for start in range(0, shape[0], count)]


def _copy_companions(src: epath.Path, dst: epath.Path) -> None:
    for name in COMPANIONS:
        if (src / name).exists():
            (src / name).copy(dst / name, overwrite=True)
    if not (src / "tokenizer.json").exists() and not (src / "vocab.json").exists():
        logging.warning("%s: no tokenizer files; the converted folder has none either", src)
