"""Hugging Face folder <-> Orbax checkpoint, a tensor at a time, so that any size converts in little memory.

The Orbax side is a checkpoint directory with one step (0) and its item "params", next to config.json
and the tokenizer's and processor's files, so that it converts back alone:

    dst/0/params/...   dst/config.json   dst/tokenizer.json ...
"""

import collections
import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath

from vilasr_jax.checkpoint.array_files import CHUNK_BYTES, cause, open_array, save_skeleton, weight_folder
from vilasr_jax.checkpoint.folders import check_free, check_reachable, complete_folder
from vilasr_jax.checkpoint.hf_config import config_from_hf, config_to_hf, generation_config, read_json
from vilasr_jax.checkpoint.hf_import import open_hf, published_weights
from vilasr_jax.checkpoint.hf_layout import Weights, abstract_params, hf_tensors, named_leaves
from vilasr_jax.checkpoint.orbax_weights import OrbaxWeights, check_orbax, place
from vilasr_jax.checkpoint.safetensors_files import MAX_SHARD_BYTES, write_safetensors
from vilasr_jax.errors import CheckpointError
from vilasr_jax.files import write_json
from vilasr_jax.models import ModelConfig, family_of
from vilasr_jax.models.hf_tensors import HFTensor, transposed

Report = Callable[[int, int], None]  # called with how much is done, and of how much

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
    "README.md",  # the model card
)


def convert_from_hf(
    src: epath.PathLike,
    dst: epath.PathLike,
    *,
    param_dtype: str | None = None,
    overwrite: bool = False,
    report: Report | None = None,
) -> ModelConfig:
    """Writes the weights of a Hugging Face folder as an Orbax checkpoint directory.

    Args:
      src: folder with config.json and safetensors, local or `gs://`.
      dst: directory to make; appears when complete.
      param_dtype: dtype of the written weights; None: the stored one.
      overwrite: replace an existing directory.
      report: called with the number of weights (and parts of large ones) written, and of all.

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

    weights = published_weights(config, stored)
    with complete_folder(dst, overwrite=overwrite) as folder:
        with _named_failure(dst):
            arrays = save_skeleton(folder, abstract)
        pieces = _pieces(_by_weight(wanted), dtype)
        arriving = contextlib.closing(_one_ahead(lambda piece: weights.read(*piece), pieces, report))
        with arriving as values, _Writer(dst, open_target) as writer:
            for piece, array in zip(pieces, values, strict=True):
                writer.put(piece, array)
        write_json(folder / "config.json", config_to_hf(config))
        copy_companions(epath.Path(src), folder)
    return config


def convert_to_hf(
    src: epath.PathLike,
    dst: epath.PathLike,
    *,
    config: ModelConfig | None = None,
    step: int | None = None,
    dtype: str | None = None,
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
      dtype: of the written weights; None: the stored one.
      layout, max_shard_bytes, overwrite: as in `write_hf`.

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
    stored = check_orbax(arrays, config)
    weights = OrbaxWeights(stored.replace(param_dtype=dtype or stored.param_dtype), arrays)
    companions = functools.partial(copy_companions, src)
    write_hf(weights, dst, companions, layout=layout, max_shard_bytes=max_shard_bytes, overwrite=overwrite)
    return config


def write_hf(
    weights: Weights,
    dst: epath.PathLike,
    companions: Callable[[epath.Path], None],
    *,
    layout: str = "flat",
    max_shard_bytes: int = MAX_SHARD_BYTES,
    overwrite: bool = False,
    report: Report | None = None,
) -> None:
    """Writes stored weights as a Hugging Face folder, in the dtype of their config.

    Args:
      weights: read a tensor, or rows of a large one, at a time.
      dst: folder to make; appears when complete.
      companions: called with the new folder: writes the tokenizer's, processor's and other files.
      layout: "flat" or "nested", as in `export_hf`.
      max_shard_bytes: largest weight file.
      overwrite: replace an existing folder.
      report: as in `convert_from_hf`.

    Raises:
      CheckpointError: a weight that can't be read or is not finite, or the destination exists or can't be
        written.
    """
    config = weights.config
    dtype, nested_name = jnp.dtype(config.param_dtype), family_of(config).nested_name
    with complete_folder(dst, overwrite=overwrite) as folder:
        write_json(folder / "config.json", config_to_hf(config, layout=layout, dtype=config.param_dtype))
        write_json(folder / "generation_config.json", generation_config(config))
        companions(folder)
        tensors = _by_weight(hf_tensors(config))
        names = [nested_name(t.key) if layout == "nested" else t.key for t in tensors]
        pieces = {name: _pieces([t], dtype) for name, t in zip(names, tensors, strict=True)}
        specs = [(name, dtype, t.shape) for name, t in zip(names, tensors, strict=True)]
        all_pieces = list(itertools.chain(*pieces.values()))
        arriving = _one_ahead(lambda piece: weights.read(*piece), all_pieces, report)
        with contextlib.closing(arriving) as values:
            write_safetensors(
                folder,
                specs,
                lambda name: itertools.islice(values, len(pieces[name])),
                max_shard_bytes=max_shard_bytes,
            )


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
    work: Callable[[_Piece], np.ndarray], pieces: Sequence[_Piece], report: Report | None
) -> Generator[np.ndarray, None, None]:
    """`work(piece)` of each in turn; the next one is read in a thread while the caller has this one."""
    with ThreadPoolExecutor(1) as thread:
        running: collections.deque[Future[np.ndarray]] = collections.deque()

        def result(number: int) -> np.ndarray:
            if report:
                report(number, len(pieces))
            return running.popleft().result()

        for number, piece in enumerate(pieces):
            running.append(thread.submit(work, piece))
            if number:
                yield result(number)
        if running:
            yield result(len(pieces))


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
            self._write(place(self.target, *piece), tensor.to_ours(values))
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


@contextlib.contextmanager
def _named_failure(dst):
    """TensorStore says ValueError for a full disk and the like."""
    try:
        yield
    except ValueError as error:
        message = f"{dst}: could not be written ({cause(error)}); nothing was left there"
        raise CheckpointError(message) from error


def _by_weight(tensors: list[HFTensor]) -> list[HFTensor]:
    return sorted(tensors, key=lambda t: (t.path, t.layer or 0))


def _split_axis(tensor: HFTensor) -> int:
    """The axis of our weight that is cut into chunks: the layers, or the published tensor's rows."""
    return 1 if tensor.layer is None and tensor.is_kernel and len(tensor.shape) == 2 else 0


def _rows(shape: tuple[int, ...], dtype) -> list[slice]:
    """Blocks of rows as large as a chunk."""
    count = max(1, CHUNK_BYTES * shape[0] // (math.prod(shape) * np.dtype(dtype).itemsize))
    return [slice(start, min(start + count, shape[0])) for start in range(0, shape[0], count)]


def copy_companions(src: epath.Path, dst: epath.Path) -> None:
    """Copies the `COMPANIONS` of a model folder; a warning says when tokenizer or processor have no file."""
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
