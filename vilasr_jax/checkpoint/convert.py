"""Hugging Face folder <-> Orbax checkpoint, a tensor at a time, so that any size converts in little memory.

The Orbax side is a checkpoint directory with one step (0) and its item "params", next to config.json
and the tokenizer's and processor's files, so that it converts back alone:

    dst/0/params/...   dst/config.json   dst/tokenizer.json ...
"""

import collections
import contextlib
import itertools
import math
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath

from vilasr_jax.checkpoint.array_files import (
    CHUNK_BYTES,
    open_array,
    read,
    save_skeleton,
    saved_shapes,
    weight_folder,
)
from vilasr_jax.checkpoint.folders import check_free, check_reachable, complete_folder
from vilasr_jax.checkpoint.hf_config import config_from_hf, config_to_hf, generation_config, read_json
from vilasr_jax.checkpoint.hf_export import check_shapes
from vilasr_jax.checkpoint.hf_import import open_hf
from vilasr_jax.checkpoint.hf_layout import abstract_params, hf_tensors, named_leaves
from vilasr_jax.checkpoint.safetensors_files import MAX_SHARD_BYTES, all_finite, write_safetensors
from vilasr_jax.errors import CheckpointError
from vilasr_jax.files import write_json
from vilasr_jax.models import ModelConfig, family_of
from vilasr_jax.models.hf_tensors import HFTensor, transposed

# Text files that are copied with the weights.
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
    "vilasr_config.json",
    "prompt.json",
)


def convert_from_hf(
    src: epath.PathLike, dst: epath.PathLike, *, param_dtype: str | None = None, overwrite: bool = False
) -> ModelConfig:
    """Writes the weights of a Hugging Face folder as an Orbax checkpoint directory.

    Args:
      src: folder with config.json and safetensors, local or `gs://`.
      dst: directory to make; appears when complete.
      param_dtype: dtype of the written weights; None: the stored one.
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

    def open_target(tensor: HFTensor):
        with _named_failure(dst):
            return open_array(arrays, tensor.path, (shapes[tensor.path], dtype, _split_axis(tensor)))

    def read_source(piece: _Piece) -> np.ndarray:
        return stored[piece.tensor.key].read(piece.rows, dtype)

    with complete_folder(dst, overwrite=overwrite) as folder:
        with _named_failure(dst):
            arrays = save_skeleton(folder, abstract)
        pieces = _pieces(_by_weight(wanted), dtype)
        arriving = contextlib.closing(_one_ahead(read_source, pieces))
        with arriving as values, _Writer(dst, open_target) as writer:
            for piece, array in zip(pieces, values, strict=True):
                writer.put(piece, array)
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
    check_reachable(src)
    src = epath.Path(src)
    arrays = weight_folder(src, step)
    if config is None:
        config = config_from_hf(read_json(src / "config.json"), where=str(src / "config.json"))
    saved, wanted = saved_shapes(arrays), hf_tensors(config)
    check_shapes({name: shape for name, (shape, _) in saved.items()}, config, where=f"{arrays}: ")
    nested_name = family_of(config).nested_name
    names = {t.key: nested_name(t.key) if layout == "nested" else t.key for t in wanted}
    with complete_folder(dst, overwrite=overwrite) as folder:
        dtypes = sorted({str(dtype) for _, dtype in saved.values()})
        write_json(
            folder / "config.json",
            config_to_hf(config, layout=layout, dtype=dtypes[0] if len(dtypes) == 1 else "float32"),
        )
        write_json(folder / "generation_config.json", generation_config(config))
        _copy_companions(src, folder)
        tensors = _by_weight(wanted)
        specs = [(names[t.key], saved[t.path][1], t.shape) for t in tensors]
        pieces = {names[t.key]: _pieces([t], saved[t.path][1]) for t in tensors}
        with contextlib.closing(_one_ahead(_Reader(arrays), itertools.chain(*pieces.values()))) as values:
            write_safetensors(
                folder,
                specs,
                lambda name: itertools.islice(values, len(pieces[name])),
                max_shard_bytes=max_shard_bytes,
            )
    return config


class _Piece(NamedTuple):
    """What is carried in one go: a tensor, or some rows of a large one."""

    tensor: HFTensor
    rows: slice | None


def _pieces(tensors: list[HFTensor], dtype) -> list[_Piece]:
    """All tensors in pieces; a layer's tensor is one piece, others are cut where our chunks are."""
    pieces = []
    for tensor in tensors:
        cut = tensor.layer is None and len(tensor.shape) == 2
        pieces += [_Piece(tensor, rows) for rows in (_rows(tensor.shape, dtype) if cut else [None])]
    return pieces


def _one_ahead(
    work: Callable[[_Piece], np.ndarray], pieces: Iterable[_Piece]
) -> Generator[np.ndarray, None, None]:
    """`work(piece)` of each in turn; the next one is read in a thread while the caller has this one."""
    with ThreadPoolExecutor(1) as thread:
        running: collections.deque[Future[np.ndarray]] = collections.deque()
        for piece in pieces:
            running.append(thread.submit(work, piece))
            if len(running) > 1:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def _place(array, piece: _Piece):
    """The part of our weight (a TensorStore) that a piece is: a layer, some columns or rows, or all of it."""
    if piece.tensor.layer is not None:
        return array[piece.tensor.layer]
    if piece.rows is None:
        return array
    return array[:, piece.rows] if piece.tensor.is_kernel else array[piece.rows]


class _Writer:
    """Published values into a checkpoint's arrays, one chunk of layers at a time.

    One chunk is written while the next is read.
    """

    def __init__(self, dst, open_target: Callable[[HFTensor], Any]):
        self.dst, self.open_target = dst, open_target
        self.path = ""
        self.target: Any = None  # a TensorStore
        self.block = np.empty(0)  # layers of the open chunk
        self.pending: Any = None  # a TensorStore write

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        with contextlib.suppress(CheckpointError) if kind else contextlib.nullcontext():
            self._finish()

    def put(self, piece: _Piece, values: np.ndarray) -> None:
        """Writes the next piece, in the order of `_pieces`; `values` must not change afterwards."""
        tensor = piece.tensor
        if tensor.path != self.path:
            self.path, self.target = tensor.path, self.open_target(tensor)
        if tensor.layer is None:
            self._write(_place(self.target, piece), tensor.to_ours(values))
            return
        layers, at_once = self.target.shape[0], self.target.chunk_layout.write_chunk.shape[0]
        row = tensor.layer % at_once
        if row == 0:
            count = min(at_once, layers - tensor.layer)
            self.block = np.empty((count, *self.target.shape[1:]), values.dtype)
        if tensor.is_kernel:
            transposed(values, self.block[row])
        else:
            self.block[row] = values
        if row == len(self.block) - 1:
            self._write(self.target[tensor.layer - row : tensor.layer + 1], self.block)

    def _write(self, place, values: np.ndarray) -> None:
        pending = place.write(values, can_reference_source_data_indefinitely=True)
        self._finish()
        self.pending = pending

    def _finish(self) -> None:
        pending, self.pending = self.pending, None
        if pending is not None:
            with _named_failure(self.dst):
                pending.result()


class _Reader:
    """Published values out of a checkpoint; the open weight is cached when its chunks span layers."""

    def __init__(self, folder: epath.Path):
        self.folder, self.path = folder, ""
        self.source: Any = None  # a TensorStore, or its values

    def __call__(self, piece: _Piece) -> np.ndarray:
        tensor = piece.tensor
        try:
            if tensor.path != self.path:
                self.path, self.source = tensor.path, open_array(self.folder, tensor.path)
                if tensor.layer is not None and self.source.chunk_layout.read_chunk.shape[0] > 1:
                    self.source = read(self.source)
            part = _place(self.source, piece)
            array = tensor.to_hf(part if isinstance(part, np.ndarray) else read(part))
        except ValueError as error:
            raise CheckpointError(
                f"{self.folder}: weight {tensor.path!r} can't be read ({_cause(error)})"
            ) from error
        if not all_finite(array):
            raise CheckpointError(f"{self.folder}: weight {tensor.path!r} holds values that are not finite")
        return array


@contextlib.contextmanager
def _named_failure(dst):
    """TensorStore says ValueError for a full disk and the like."""
    try:
        yield
    except ValueError as error:
        message = f"{dst}: could not be written ({_cause(error)}); nothing was left there"
        raise CheckpointError(message) from error


def _cause(error: ValueError) -> str:
    """The end of TensorStore's chain of causes, without the settings in brackets after it."""
    return ": ".join(str(error).split(" [", 1)[0].split(": ")[-2:])


def _by_weight(tensors: list[HFTensor]) -> list[HFTensor]:
    return sorted(tensors, key=lambda t: (t.path, t.layer or 0))


def _split_axis(tensor: HFTensor) -> int:
    """The axis of our weight that is cut into chunks: the layers, or the published tensor's rows."""
    return 1 if tensor.layer is None and tensor.is_kernel and len(tensor.shape) == 2 else 0


def _rows(shape: tuple[int, ...], dtype) -> list[slice]:
    """Blocks of rows as large as a chunk."""
    count = max(1, CHUNK_BYTES * shape[0] // (math.prod(shape) * np.dtype(dtype).itemsize))
    return [slice(start, min(start + count, shape[0])) for start in range(0, shape[0], count)]


def _copy_companions(src: epath.Path, dst: epath.Path) -> None:
    for name in COMPANIONS:
        if (src / name).exists():
            (src / name).copy(dst / name, overwrite=True)
    present = {name for name in COMPANIONS if (dst / name).exists()}
    absent = [] if present & {"tokenizer.json", "vocab.json"} else ["tokenizer files"]
    absent += (
        []
        if present & {"preprocessor_config.json", "processor_config.json"}
        else ["preprocessor_config.json"]
    )
    if absent:
        logging.warning("%s: no %s; the converted folder has none either", src, " and no ".join(absent))
