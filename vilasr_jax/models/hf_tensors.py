"""A published tensor and the place of its values in our weights."""

import dataclasses
import functools
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Shaped

_BLOCK = 256  # rows transposed in one go: they stay in a core's cache


@dataclasses.dataclass(frozen=True)
class HFTensor:
    """One published tensor and the place of its values in our weights."""

    key: str  # published name, "model.layers.3.mlp.up_proj.weight"
    shape: tuple[int, ...]  # as published
    path: str  # our weight, "language_model/layers/mlp/up_proj/kernel"
    layer: int | None  # index on the weight's leading axis, None when the weight is the tensor

    @property
    def is_kernel(self) -> bool:
        """Whether ours is the transpose: torch's [out, in] becomes [in, out]."""
        return self.path.endswith("/kernel")

    def to_ours(self, array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
        """Published values, or those of some rows, as our (one layer's) weight, or its columns."""
        return transposed(array.reshape(len(array), -1)) if self.is_kernel else array

    def to_hf(self, array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
        """Our (one layer's) weight, or some columns of it, as published, or its rows."""
        return transposed(array).reshape(-1, *self.shape[1:]) if self.is_kernel else array


def transposed(
    array: Shaped[np.ndarray, "rows columns"], out: Shaped[np.ndarray, "columns rows"] | None = None
) -> Shaped[np.ndarray, "columns rows"]:
    """The transpose of a matrix, in memory of its own or in `out`; by blocks, on several cores."""
    out = np.empty(array.shape[::-1], array.dtype) if out is None else out
    bits = f"u{array.dtype.itemsize}"  # NumPy copies these faster than bfloat16
    source, target = array.view(bits), out.view(bits)

    def block(start: int) -> None:
        target[:, start : start + _BLOCK] = source[start : start + _BLOCK].T

    starts = range(0, len(array), _BLOCK)
    list(_threads().map(block, starts) if array.size > _BLOCK**2 else map(block, starts))
    return out


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), "transpose")
