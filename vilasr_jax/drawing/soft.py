"""A differentiable renderer: boxes and lines from real-valued coordinates to soft masks and images.

Every edge is a sigmoid of the distance to it, so that the coverage of a pixel has a gradient in the
coordinates. With `s(t) = sigmoid(t / softness)` and a pixel centre at integer `x`, the span `[a, b]` covers

    span(x; a, b) = s(x - a + 1/2) * s(b - x + 1/2)

which goes to 1 for the pixels `a..b` and 0 outside as the softness goes to 0: what PIL paints. A
filled box is `span(x; x1, x2) * span(y; y1, y2)`; an outline of width `w`, drawn inwards, is that times one
minus the box shrunk by `w`. A line is a span along it and one across it, in its own rotated coordinates.

Many shapes make one mask by the probability that at least one covers a pixel, `1 - prod_k (1 - m_k)`, added
up as logarithms: the running sum enters linearly, so the gradient needs no copy of the image for each shape.

`expected_number` and `soft_iou` serve the SFT term of `training.soft_drawing`, which has the derivation.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

Kind = Literal["box", "filled", "line"]
_LEAST = 1e-6  # lower limit of logarithms' arguments and of lengths


def soft_shape(
    kind: Kind, corners: Float[Array, "4"], size: tuple[int, int], width: float, softness: float
) -> Float[Array, "h w"]:
    """Coverage (0 to 1) of one shape on an image of `size` (height, width).

    Args:
      kind: "box" (outline), "filled" (box with its inside) or "line".
      corners: x1, y1, x2, y2 in pixels; a box may have them swapped.
      size: (height, width) of the image.
      width: pixels of the outline or line; not used for "filled".
      softness: pixels over which an edge fades; 0.5 looks anti-aliased.
    """
    xs, ys = jnp.arange(size[1], dtype=jnp.float32), jnp.arange(size[0], dtype=jnp.float32)
    x1, y1, x2, y2 = corners
    if kind == "line":
        return _line(xs[None, :], ys[:, None], corners, width, softness)
    x1, x2 = jnp.minimum(x1, x2), jnp.maximum(x1, x2)
    y1, y2 = jnp.minimum(y1, y2), jnp.maximum(y1, y2)
    outer = _span(ys, y1, y2, softness)[:, None] * _span(xs, x1, x2, softness)[None, :]
    if kind == "filled":
        return outer
    inner_y = _span(ys, y1 + width, y2 - width, softness)
    inner_x = _span(xs, x1 + width, x2 - width, softness)
    return outer * (1 - inner_y[:, None] * inner_x[None, :])


def soft_mask(
    kind: Kind,
    corners: Float[Array, "*b n 4"],
    valid: Bool[Array, "*b n"],
    size: tuple[int, int],
    *,
    width: float = 3.0,
    softness: float = 0.5,
) -> Float[Array, "*b h w"]:
    """Coverage by any of n shapes; padding shapes have `valid` False. Memory: one image per batch entry.

    Shapes are processed one after another (`lax.scan`) and recomputed for the gradient.
    """
    batch = corners.shape[:-2]
    flat = corners.reshape(-1, *corners.shape[-2:]).swapaxes(0, 1)
    used = valid.reshape(-1, valid.shape[-1]).swapaxes(0, 1)
    draw = jax.vmap(lambda c: soft_shape(kind, c, size, width, softness))

    @jax.checkpoint
    def clear(shape, use):
        return jnp.where(use[:, None, None], jnp.log(jnp.maximum(1 - draw(shape), _LEAST)), 0.0)

    def step(total, inputs):
        return total + clear(*inputs), None

    start = jnp.zeros((flat.shape[1], *size), jnp.float32)
    total, _ = jax.lax.scan(step, start, (flat, used))
    return (1 - jnp.exp(total)).reshape(*batch, *size)


def soft_render(
    base: Float[Array, "h w 3"],
    corners: Float[Array, "n 4"],
    colors: Float[Array, "n 3"],
    is_line: Bool[Array, " n"],
    *,
    width: float = 3.0,
    softness: float = 0.5,
) -> Float[Array, "h w 3"]:
    """`base` (0 to 1) with n box outlines and lines painted over it, the last on top. `vmap` for batches."""
    size = (base.shape[0], base.shape[1])

    @jax.checkpoint
    def paint(image, corners, color, line):
        box = soft_shape("box", corners, size, width, softness)
        cover = jnp.where(line, soft_shape("line", corners, size, width, softness), box)[..., None]
        return image * (1 - cover) + color * cover

    shapes = (corners, colors, is_line)
    image, _ = jax.lax.scan(lambda image, shape: (paint(image, *shape), None), base, shapes)
    return image


def soft_iou(a: Float[Array, "*b h w"], b: Float[Array, "*b h w"]) -> Float[Array, "*b"]:
    """Soft intersection over union of two masks, `sum ab / sum (a^2 + b^2 - ab)`; 0 where both are empty.

    For hard masks it is the usual one. Unlike `sum ab / sum (a + b - ab)` it is 1 exactly where soft masks
    agree (the Tanimoto coefficient), so a drawing that is right has no gradient left.
    """
    both = (a * b).sum((-2, -1))
    return both / jnp.maximum((a * a + b * b).sum((-2, -1)) - both, _LEAST)


def expected_number(
    logits: Float[Array, "*b vocab"],
    ids: Int[Array | np.ndarray, " k"],
    values: Float[Array | np.ndarray, " k"],
) -> Float[Array, "*b"]:
    """Mean of the numbers whose tokens are `ids`, under the model's probabilities among those tokens."""
    return jax.nn.softmax(logits[..., ids].astype(jnp.float32), -1) @ values


def _span(x: Array, low: Array | float, high: Array | float, softness: float) -> Array:
    """Soft indicator of `low <= x <= high` for pixel positions `x`."""
    return jax.nn.sigmoid((x - low + 0.5) / softness) * jax.nn.sigmoid((high - x + 0.5) / softness)


def _line(x: Array, y: Array, corners: Array, width: float, softness: float) -> Array:
    x1, y1, x2, y2 = corners
    dx, dy = x2 - x1, y2 - y1
    length = jnp.sqrt(dx * dx + dy * dy + _LEAST)
    along = ((x - x1) * dx + (y - y1) * dy) / length
    across = ((x - x1) * dy - (y - y1) * dx) / length
    half = (width - 1) / 2
    return _span(along, 0.0, length, softness) * _span(across, -half, half, softness)
