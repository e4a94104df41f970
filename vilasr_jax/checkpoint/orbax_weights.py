"""The weights in an Orbax checkpoint, one that was converted or a training stage's."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from vilasr_jax.checkpoint.array_files import cause, open_array, read, saved_shapes
from vilasr_jax.checkpoint.hf_export import check_shapes
from vilasr_jax.checkpoint.safetensors_files import converted
from vilasr_jax.errors import CheckpointError
from vilasr_jax.models import ModelConfig
from vilasr_jax.models.hf_tensors import HFTensor


class OrbaxWeights:
    """The `Weights` in a folder of arrays (see `array_files.weight_folder`).

    Args:
      config: sizes, and the dtype that values are given in.
      folder: of the arrays.
    """

    def __init__(self, config: ModelConfig, folder: epath.Path):
        self.config, self.folder = config, folder
        self.array = functools.cache(functools.partial(open_array, folder))  # TensorStores by path
        self._path, self._stack = "", np.empty(0)  # the weight read last whose chunks span layers

    def cuts(self, path: str) -> tuple[int, ...]:
        """The axes of a weight, that with the most chunks first."""
        with self._named_failure(path):
            array = self.array(path)
            chunk = array.chunk_layout.read_chunk.shape
        return tuple(sorted(range(len(chunk)), key=lambda axis: chunk[axis] / array.shape[axis]))

    def block(self, path: str, index: tuple[slice, ...], shape: tuple[int, ...]) -> np.ndarray:
        """The values of `weight[index]`; of the array only the chunks in it are read."""
        with self._named_failure(path):
            values = read(self.array(path)[index])
        return self._converted(values, path)

    def layers(self, path: str, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        """The values of a stack of `shape`; layers in one chunk are read at once."""
        with self._named_failure(path):
            count = self.array(path).chunk_layout.read_chunk.shape[0]
        for start in range(0, shape[0], count):
            layers = slice(start, min(start + count, shape[0]))
            yield from self.block(path, (layers, *(slice(None),) * (len(shape) - 1)), shape)

    def read(self, tensor: HFTensor, rows: slice | None) -> np.ndarray:
        """Rows of a published tensor; a weight whose chunks span layers is read in one go, and retained."""
        with self._named_failure(tensor.path):
            source = self.array(tensor.path)
            if tensor.layer is not None and source.chunk_layout.read_chunk.shape[0] > 1:
                if tensor.path != self._path:
                    self._path, self._stack = tensor.path, read(source)
                source = self._stack
            part = place(source, tensor, rows)
            values = tensor.to_hf(part if isinstance(part, np.ndarray) else read(part))
        return self._converted(values, tensor.path)

    def _converted(self, values: np.ndarray, path: str) -> np.ndarray:
        return converted(values, self.config.param_dtype, f"{self.folder}: weight {path!r}")

    @contextlib.contextmanager
    def _named_failure(self, path: str) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            message = f"{self.folder}: weight {path!r} can't be read ({cause(error)})"
            raise CheckpointError(message) from error


def place(array: Any, tensor: HFTensor, rows: slice | None) -> Any:
    """The part of our weight (a TensorStore, or its values) that rows of a published tensor are."""
    if tensor.layer is not None:
        return array[tensor.layer]
    if rows is None:
        return array
    return array[:, rows] if tensor.is_kernel else array[rows]


def check_orbax(folder: epath.Path, config: ModelConfig) -> ModelConfig:
    """Checks the list of arrays in a folder without reading one.

    Returns:
      The config with the dtype of the stored weights; float32 where they are mixed.

    Raises:
      CheckpointError: an array is missing, unexpected or of another shape than `config` says, or the list
        can't be read.
    """
    saved = saved_shapes(folder)
    check_shapes({name: shape for name, (shape, _) in saved.items()}, config, where=f"{folder}: ")
    dtypes = {str(dtype) for _, dtype in saved.values()}
    return config.replace(param_dtype=dtypes.pop() if len(dtypes) == 1 else "float32")
