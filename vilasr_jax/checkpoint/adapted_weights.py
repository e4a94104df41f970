"""Stored weights with what LoRA has trained, added as they are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import jax.numpy as jnp
import numpy as np

from vilasr_jax.checkpoint.hf_layout import Weights
from vilasr_jax.models.hf_tensors import HFTensor


class AdaptedWeights:
    """The `Weights` W + scale A B, in the dtype of the base.

    Args:
      base: W, the float weights of the model that LoRA began with.
      factors: by kernel ("language_model/layers/q_proj/kernel"), {"a": [l, in, rank], "b": [l, rank, out]}.
      scale: alpha / rank.
    """

    def __init__(self, base: Weights, factors: Mapping[str, Mapping[str, np.ndarray]], scale: float):
        self.base, self.config, self.scale = base, base.config, scale
        self.factors = {name.removesuffix("/value"): pair for name, pair in factors.items()}

    def cuts(self, path: str) -> tuple[int, ...]:
        """As of the base."""
        return self.base.cuts(path)

    def block(self, path: str, index: tuple[slice, ...], shape: tuple[int, ...]) -> np.ndarray:
        """The values of `weight[index]`."""
        values = self.base.block(path, index, shape)
        if path not in self.factors:
            return values
        layers, d_in, d_out = index
        pair = self.factors[path]
        return self._sum(values, np.asarray(pair["a"])[layers, d_in], np.asarray(pair["b"])[layers, :, d_out])

    def layers(self, path: str, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        """The values of a stack of `shape`, layer after layer."""
        for layer, values in enumerate(self.base.layers(path, shape)):
            pair = self.factors.get(path)
            yield values if pair is None else self._sum(values, pair["a"][layer], pair["b"][layer])

    def read(self, tensor: HFTensor, rows: slice | None) -> np.ndarray:
        """Rows of a published tensor."""
        values = self.base.read(tensor, rows)
        pair = self.factors.get(tensor.path)
        if pair is None:
            return values
        a, b = np.asarray(pair["a"][tensor.layer]), np.asarray(pair["b"][tensor.layer])
        return self._sum(values, b.T[slice(None) if rows is None else rows], a.T)  # the transpose: (A B)^T

    def _sum(self, values: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        addition = self.scale * np.matmul(np.asarray(a), np.asarray(b))
        return (values.astype(np.float32) + addition).astype(jnp.dtype(self.config.param_dtype))
