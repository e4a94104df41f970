"""Reading and writing safetensors files a tensor at a time.

The format: eight bytes of header length, a JSON header {name: {dtype, shape, data_offsets}}, then the values
(https://github.com/huggingface/safetensors). A local file is mapped, and of a remote one a range is read, for
one tensor (or some of its rows) at a time, so that the memory used is that tensor's.
"""

import dataclasses
import json
import math
import mmap
import os
import struct
from collections.abc import Callable, Iterable, Mapping

import ml_dtypes
import numpy as np
from absl import logging
from etils import epath

from vilasr_jax.checkpoint.hf_config import read_json
from vilasr_jax.errors import CheckpointError
from vilasr_jax.files import mistaken_for, write_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
OTHERS = ("adapter_", "consolidated.")  # files that hold no part of the model, or all of it again
MAX_SHARD_BYTES = 5_000_000_000

DTYPES = {"BF16": np.dtype(ml_dtypes.bfloat16), "F16": np.dtype(np.float16), "F32": np.dtype(np.float32)}
_CODES = {dtype: code for code, dtype in DTYPES.items()}
# Without its sign, the bits of a finite number are below those of infinity.
_FINITE = {"BF16": (np.uint16, 0xFEFF), "F16": (np.uint16, 0xF7FF), "F32": (np.uint32, 0xFEFFFFFF)}
_CHUNK = 1 << 18  # values looked at in one go: they stay in a core's cache


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """File, offset, dtype and shape of a stored tensor."""

    name: str
    file: epath.Path
    code: str  # the format's dtype name
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file

    @property
    def dtype(self) -> np.dtype:
        return DTYPES[self.code]

    def read(self, rows: slice | None = None, dtype: np.dtype | str | None = None) -> np.ndarray:
        """The values, or those of some rows (indices on the first axis); not to be written to.

        Args:
          rows: None for all.
          dtype: to convert to; None: the stored one.

        Raises:
          CheckpointError: the file ends too early, or a value is infinite, not a number, or too large for
            `dtype`.
        """
        shape, offset = self.shape, self.offset
        if rows is not None:
            start, stop, _ = rows.indices(shape[0])
            offset += start * math.prod(shape[1:]) * self.dtype.itemsize
            shape = (stop - start, *shape[1:])
        size = math.prod(shape) * self.dtype.itemsize
        data = (_fetched if "://" in str(self.file) else _mapped)(self.file, offset, size)
        if len(data) < size:
            raise CheckpointError(f"{self.file}: ends inside tensor {self.name!r}; fetch the file again")
        array = np.frombuffer(data, self.dtype).reshape(shape)
        return converted(array, dtype, f"{self.file}: tensor {self.name!r}")


def _mapped(file: epath.Path, offset: int, size: int) -> memoryview:
    """Bytes of a local file as the page cache has them: no copy, and given back with the last reference."""
    start = offset - offset % mmap.ALLOCATIONGRANULARITY
    with file.open("rb") as f:
        size = min(size, os.fstat(f.fileno()).st_size - offset)
        if size <= 0:
            return memoryview(b"")
        mapped = mmap.mmap(f.fileno(), offset - start + size, access=mmap.ACCESS_READ, offset=start)
    mapped.madvise(mmap.MADV_WILLNEED)
    return memoryview(mapped)[offset - start :]


def _fetched(file: epath.Path, offset: int, size: int) -> bytes:
    """Bytes of a remote file: that range of it alone."""
    with file.open("rb") as f:
        f.seek(offset)
        return f.read(size)


def converted(array: np.ndarray, dtype: np.dtype | str | None, where: str) -> np.ndarray:
    """Weights as `dtype`; None: as they are.

    Raises:
      CheckpointError: a value is infinite, not a number, or too large for `dtype`; begins with `where`.
    """
    if not all_finite(array):
        raise CheckpointError(f"{where} holds values that are not finite")
    if dtype is None or np.dtype(dtype) == array.dtype:
        return array
    with np.errstate(over="ignore"):  # it is looked for below
        array = array.astype(dtype)
    if not all_finite(array):
        cure = "choose another dtype, such as float32"
        raise CheckpointError(f"{where} holds values that {np.dtype(dtype)} has no room for; {cure}")
    return array


def all_finite(array: np.ndarray) -> bool:
    """Whether no value is infinite or not a number; on the bits, as NumPy is slow on bfloat16."""
    kind, largest = _FINITE[_CODES[array.dtype]]
    flat = array.reshape(-1).view(kind)
    shifted = np.empty(min(_CHUNK, flat.size), kind)
    parts = (flat[i : i + _CHUNK] for i in range(0, flat.size, _CHUNK))
    return not any(np.left_shift(part, 1, out=shifted[: part.size]).max() > largest for part in parts)


def stored_tensors(folder: epath.PathLike) -> dict[str, StoredTensor]:
    """The tensors of a model folder: those of its index, of model.safetensors, or of every *.safetensors.

    Raises:
      CheckpointError: no folder or no safetensors in it, a file missing, damaged or cut off, a tensor in two
        files or in none, or a dtype other than BF16, F16 and F32; the message names the file and the tensor.
    """
    folder = epath.Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder")
    weight_map = None
    if (folder / INDEX).exists():
        weight_map = read_json(folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict):
            raise CheckpointError(f"{folder / INDEX}: has no weight_map")
        names = sorted(set(weight_map.values()))
        if (folder / SINGLE).exists() and not any((folder / name).exists() for name in names):
            logging.warning("%s: its files are not there; %s is read alone", folder / INDEX, SINGLE)
            weight_map, names = None, [SINGLE]
    elif (folder / SINGLE).exists():
        names = [SINGLE]
    else:
        found = (path.name for path in folder.iterdir() if path.name.endswith(".safetensors"))
        names = sorted(name for name in found if not name.startswith(OTHERS))
    if not names:
        raise CheckpointError(f"{folder}: no .safetensors files here (pickled weights are never read)")
    tensors: dict[str, StoredTensor] = {}
    for name in names:
        for tensor in _read_header(folder / name):
            if tensor.name in tensors:
                raise CheckpointError(
                    f"{folder}: tensor {tensor.name!r} is in {tensors[tensor.name].file.name} and {name}"
                )
            tensors[tensor.name] = tensor
    for key, name in (weight_map or {}).items():
        if key not in tensors or tensors[key].file.name != name:
            raise CheckpointError(f"{folder / name}: has no tensor {key!r}, though {INDEX} says so")
    return tensors


def write_safetensors(
    folder: epath.PathLike,
    tensors: Iterable[tuple[str, np.dtype, tuple[int, ...]]],
    values: Callable[[str], np.ndarray | Iterable[np.ndarray]],
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes model.safetensors, or shards with an index when there is more than `max_shard_bytes`.

    Args:
      folder: an existing folder.
      tensors: (name, dtype, shape) of each.
      values: returns one tensor's values, in one array or as blocks of rows; called once a name, in order.
      max_shard_bytes: largest shard, unless one tensor alone is larger.
      metadata: goes into each header.

    Raises:
      CheckpointError: a dtype that is not written.
    """
    shards: list[list] = [[]]
    size = total = 0
    for name, dtype, shape in tensors:
        dtype = np.dtype(dtype)
        if dtype not in _CODES:
            raise CheckpointError(
                f"tensor {name!r}: {dtype} is not written to safetensors; use {sorted(_CODES, key=str)}"
            )
        count = dtype.itemsize * math.prod(shape)
        if shards[-1] and size + count > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append((name, dtype, tuple(shape), count))
        size, total = size + count, total + count
    single = len(shards) == 1
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = SINGLE if single else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_file(epath.Path(folder) / name, shard, values, metadata)
        weight_map |= {tensor[0]: name for tensor in shard}
    if not single:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        write_json(epath.Path(folder) / INDEX, index)


def _write_file(path, shard, values, metadata):
    header, offset = {"__metadata__": {"format": "pt", **(metadata or {})}}, 0
    for name, dtype, shape, count in shard:
        header[name] = {
            "dtype": _CODES[dtype],
            "shape": list(shape),
            "data_offsets": [offset, offset + count],
        }
        offset += count
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, dtype, shape, count in shard:
            blocks = values(name)
            for block in [blocks] if isinstance(blocks, np.ndarray) else blocks:
                if block.dtype != dtype or block.shape[1:] != shape[1:]:
                    raise ValueError(f"{name}: {block.dtype}{block.shape}, announced as {dtype}{shape}")
                block = np.ascontiguousarray(block).reshape(-1).view(np.uint8)
                count -= f.write(block.data)
            if count:
                raise ValueError(f"{name}: {count} bytes less than announced")


def _read_header(path: epath.Path) -> list[StoredTensor]:
    head = b""
    try:
        size = path.stat().length
        with path.open("rb") as f:
            head = f.read(512)
            f.seek(8)
            (length,) = struct.unpack("<Q", head[:8])
            if length > min(size, 100_000_000):
                raise ValueError("the header is longer than the file")
            header = json.loads(f.read(length))
        header.pop("__metadata__", None)
        tensors = []
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            code, shape = entry["dtype"], tuple(entry["shape"])
            if code not in DTYPES:
                raise CheckpointError(
                    f"{path}: tensor {name!r} has dtype {code}; only {sorted(DTYPES)} are read"
                )
            if end - begin != DTYPES[code].itemsize * math.prod(shape):
                raise ValueError(f"tensor {name!r} has {end - begin} bytes for shape {shape}")
            if 8 + length + end > size:
                raise CheckpointError(f"{path}: ends inside tensor {name!r}; fetch the file again")
            tensors.append(StoredTensor(name, path, code, shape, 8 + length + begin))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: missing") from error
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, OSError) as error:
        reason = mistaken_for(head) or f"not a safetensors file, or cut off ({error})"
        raise CheckpointError(f"{path}: {reason}") from error
    return tensors
