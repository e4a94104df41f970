"""Rotary position embeddings: M-RoPE of the decoder and the 2-D one of the vision tower.

A rotation turns the pair (x[i], x[i + h/2]) by an angle position * theta^(-2i/h) (arXiv 2104.09864).
Angles and rotation are float32; the result has the input's dtype.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def inverse_frequencies(dim: int, theta: float) -> Float[np.ndarray, " half"]:
    """theta^(-2i/dim) for i < dim/2, float32 [dim/2]."""
    return (1.0 / np.float32(theta) ** (np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim))).astype(
        np.float32
    )


def mrope(
    positions: Int[Array, "3 b t"], head_dim: int, theta: float, axis_of_pair: Sequence[int]
) -> tuple[Float[Array, "b t half"], Float[Array, "b t half"]]:
    """Cosines and sines of multimodal rope (arXiv 2409.12191, section 2.1).

    Args:
      positions: int [3, b, t], time, row and column of each token; all equal for text.
      head_dim: h.
      theta: base.
      axis_of_pair: what each of the h/2 pairs turns with: 0 time, 1 row, 2 column.

    Returns:
      (cos, sin), each float32 [b, t, h/2].
    """
    angles = jnp.moveaxis(positions.astype(jnp.float32)[np.asarray(axis_of_pair)], 0, -1)
    angles = angles * inverse_frequencies(head_dim, theta)
    return jnp.cos(angles), jnp.sin(angles)


def rope_2d(
    pos_hw: Int[Array, "*rows p 2"], head_dim: int, theta: float
) -> tuple[Float[Array, "*rows p half"], Float[Array, "*rows p half"]]:
    """Cosines and sines of the vision tower: a quarter of the width for the row, a quarter for the column.

    Args:
      pos_hw: int [..., p, 2], row and column of each patch.
      head_dim: h.
      theta: base.

    Returns:
      (cos, sin), each float32 [..., p, h/2].
    """
    angles = pos_hw.astype(jnp.float32)[..., None] * inverse_frequencies(head_dim // 2, theta)
    angles = angles.reshape(*angles.shape[:-2], head_dim // 2)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x: Float[Array, "b t n h"], rope: Sequence[Float[Array, "b t half"]], *, by_matrix: bool = False
) -> Float[Array, "b t n h"]:
    """Turns x [b, t, heads, h] by rope = (cos, sin), each [b, t, h/2].

    Args:
      x: bfloat16 or float32.
      rope: from `mrope` or `rope_2d`.
      by_matrix: swap the halves of x with a product, exact and the same result: TPUs move no data for it.
    """
    cos, sin = (a[:, :, None, :] for a in rope)
    if by_matrix:
        swapped = jnp.dot(
            x,
            _swap(x.shape[-1]).astype(x.dtype),
            precision=jax.lax.Precision.HIGHEST,
            preferred_element_type=jnp.float32,
        )
        cos, sin = (jnp.concatenate([a, a], axis=-1) for a in (cos, sin))
        return (x.astype(jnp.float32) * cos + swapped * sin).astype(x.dtype)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)


def _swap(h: int) -> Float[np.ndarray, "h h"]:
    """[h, h]: x = (a, b) -> (-b, a), halves."""
    one, zero = np.eye(h // 2), np.zeros((h // 2, h // 2))
    return np.block([[zero, one], [-one, zero]])
