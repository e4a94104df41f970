"""Weights in a finished Orbax checkpoint, read and written a piece at a time with TensorStore.

Orbax reads and writes full arrays; a 72B model's stacked layers are tens of GB each. So a checkpoint is first
saved by Orbax with arrays of one value, which writes every file of its format, and then each array is
created here in its real shape, in chunks of full layers, and filled.
"""

import functools
import math
import os
from collections.abc import Sequence

import jax
import numpy as np
import tensorstore as ts
from etils import epath
from orbax.checkpoint import v1 as ocp

from vilasr_jax.checkpoint.store import CHUNK_BYTES, CheckpointStore
from vilasr_jax.errors import CheckpointError

ITEM = "params"


@functools.cache
def _context() -> ts.Context:
    """Local files are mapped for reading, and written as `cp` does: the system says when to which disk."""
    return ts.Context({"file_io_mode": {"mode": "memmap"}, "file_io_sync": False})


def save_skeleton(directory: epath.Path, abstract) -> epath.Path:
    """Saves step 0 with one value for each weight of `abstract`; returns the folder of the arrays."""
    tiny = jax.tree.map(lambda leaf: np.zeros((1,) * leaf.ndim, leaf.dtype), abstract)
    with CheckpointStore(directory) as store:
        store.save(0, {ITEM: tiny}, wait=True)
    return directory / "0" / ITEM


def weight_folder(directory: epath.PathLike, step: int | None = None) -> epath.Path:
    """The folder of the weights in a checkpoint directory, of `step` or the newest.

    Raises:
      CheckpointError: no finished checkpoint there, or none of that step.
    """
    store = CheckpointStore(directory)
    steps = store.steps()
    if not steps or (step is not None and step not in steps):
        wanted = "" if step is None else f" of step {step}"
        raise CheckpointError(f"{directory}: no finished checkpoint{wanted} here (steps: {steps})")
    return store.directory / str(steps[-1] if step is None else step) / ITEM


def saved_shapes(folder: epath.Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and dtype of each saved weight, by path ("lm_head/kernel")."""
    saved = ocp.checkpointables_metadata(folder.parent).metadata
    if ITEM in saved and saved[ITEM] is None:
        raise CheckpointError(f"{folder}: the list of weights can't be read; the checkpoint is damaged")
    if not saved.get(ITEM):
        raise CheckpointError(f"{folder.parent}: holds no item {ITEM!r}")
    return {_weight(key): (tuple(leaf.shape), np.dtype(leaf.dtype)) for key, leaf in saved[ITEM].items()}


def open_array(folder: epath.Path, weight: str, new: tuple[Sequence[int], np.dtype, int] | None = None):
    """The TensorStore of one weight.

    Args:
      folder: from `save_skeleton` or `weight_folder`.
      weight: path ("lm_head/kernel").
      new: None to read; (shape, dtype, axis) to create it, empty, in chunks of CHUNK_BYTES cut along axis.
    """
    base = str(folder) if "://" in str(folder) else f"file://{os.path.abspath(folder)}"
    for key in (f"{weight}/value", weight):  # an NNX state's leaf, or a dict's
        store = {"driver": "ocdbt", "base": f"{base}/", "path": f"{key}/"}
        spec = {"driver": "zarr3", "kvstore": store, "store_data_equal_to_fill_value": True}
        try:
            found = ts.open(spec, open=True, read=True, context=_context()).result()
        except ValueError:
            continue
        if new is None:
            return found
        shape, dtype, axis = new
        chunk = list(shape)
        chunk[axis] = max(
            1, min(shape[axis], CHUNK_BYTES * shape[axis] // (math.prod(shape) * dtype.itemsize))
        )
        spec["metadata"] = {
            "shape": list(shape),
            "data_type": found.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
            # No compression: weights hardly shrink, and it would cost more time than the disk.
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
            "fill_value": 0.0,
        }
        return ts.open(spec, create=True, delete_existing=True, context=_context()).result()
    raise CheckpointError(f"{folder}: weight {weight!r} can't be opened")


def read(array: ts.TensorStore) -> np.ndarray:
    """The values of a (part of a) TensorStore; `array.read()` would copy them once more.

    Raises:
      ValueError: a file is damaged or missing.
    """
    out = np.empty(array.shape, array.dtype.numpy_dtype)
    ts.array(out).write(array).result()
    return out


def cause(error: ValueError) -> str:
    """The end of TensorStore's chain of causes, without the settings in brackets after it."""
    return ": ".join(str(error).split(" [", 1)[0].split(": ")[-2:])


def _weight(key: str) -> str:
    return key.removesuffix("/value")
