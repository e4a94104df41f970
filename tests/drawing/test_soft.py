"""The soft renderer: gradients, agreement with PIL as it hardens, masks, overlap, expected numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vilasr_jax.drawing import Box, Line, Style, get_style, render
from vilasr_jax.drawing.soft import expected_number, soft_iou, soft_mask, soft_render, soft_shape

SIZE = (53, 67)  # height, width


PLACES = jnp.asarray(
    [(10.3, 7.1, 41.2, 33.9), (20.0, 12.0, 50.0, 12.5), (41.2, 40.1, 10.3, 9.2), (-8.0, 30.0, 90.0, 44.4)]
)


@pytest.mark.parametrize("kind", ["box", "filled", "line"])
def test_gradient_agrees_with_finite_differences(kind):
    weights = jnp.asarray(np.random.default_rng(0).normal(size=SIZE), jnp.float32)
    step = 3e-2

    @jax.jit
    def both(point):
        def loss(c):
            return (soft_shape(kind, c, SIZE, 3.0, 1.0) * weights).sum() / 10

        nudges = step * jnp.eye(4)
        slopes = jax.vmap(lambda n: (loss(point + n) - loss(point - n)) / (2 * step))(nudges)
        return jax.grad(loss)(point), slopes

    for point in PLACES:
        gradient, slopes = both(point)
        assert np.abs(gradient - slopes).max() < 1e-3 * max(1.0, np.abs(slopes).max())


@functools.partial(jax.jit, static_argnames="kind")
def hard(kind, corners):
    return soft_shape(kind, corners, SIZE, 3.0, 0.02)


@pytest.mark.parametrize("corners", [(10, 7, 41, 33), (3, 20, 60, 50), (30, 5, 35, 48)])
@pytest.mark.parametrize("kind", [Box, Line])
def test_hardens_to_pil(kind, corners):
    style = Style(labels=False, line_width=3, box_width=3, palette=((0, 0, 0),))
    white = Image.new("RGB", SIZE[::-1], "white")
    pil = 1 - np.asarray(render(white, [kind(1, "a", *corners)], style))[..., 0] / 255
    soft = np.asarray(hard("box" if kind is Box else "line", jnp.asarray(corners, jnp.float32)))
    w, h = corners[2] - corners[0], corners[3] - corners[1]
    edge = 2 * (w + h) if kind is Box else 2 * np.hypot(w, h)
    assert np.abs(pil - soft).mean() < edge / 255  # the bar
    assert np.abs(pil - soft).sum() < 0.5 * edge  # and less than half a pixel for each pixel of edge
    if kind is Box:
        np.testing.assert_allclose(soft, pil, atol=1e-5)


def test_256_boxes_in_one_call():
    """On 448 x 448 pixels, 64 at a time; every box covers its own area."""
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 300, (256, 2))
    corners = np.concatenate([low, low + rng.uniform(10, 140, (256, 2))], 1).astype(np.float32).round()

    @jax.jit
    def areas(corners):
        return jax.lax.map(
            lambda c: soft_shape("filled", c, (448, 448), 3.0, 0.05).sum(), corners, batch_size=64
        )

    sides = corners[:, 2:] - corners[:, :2] + 1
    np.testing.assert_allclose(areas(corners), sides.prod(1), rtol=1e-3)


def test_64_pictures_of_256_boxes_fit_in_memory():
    """One jitted call with gradients: the compiler's own figure, so that nothing need run."""

    def loss(corners):
        return soft_mask("box", corners, jnp.ones((64, 256), bool), (448, 448)).mean()

    lowered = jax.jit(jax.value_and_grad(loss)).lower(jax.ShapeDtypeStruct((64, 256, 4), jnp.float32))
    pictures = 64 * 448 * 448 * 4
    assert lowered.compile().memory_analysis().temp_size_in_bytes < 12 * pictures  # not 256 times


@pytest.mark.slow
def test_64_pictures_of_256_boxes():
    rng = np.random.default_rng(1)
    low = rng.uniform(0, 300, (64, 256, 2))
    corners = jnp.asarray(np.concatenate([low, low + rng.uniform(10, 140, low.shape)], -1), jnp.float32)
    draw = jax.jit(lambda c: soft_mask("box", c, jnp.ones((64, 256), bool), (448, 448)))
    mask = np.asarray(draw(corners))
    assert mask.shape == (64, 448, 448) and np.isfinite(mask).all() and 0.2 < mask.mean() < 1


def test_axis_aligned_lines_are_exact():
    style = get_style("maze", line_gap=0, newest_ring=0, line_width=3, palette=((0, 0, 0),))
    white = Image.new("RGB", SIZE[::-1], "white")
    for corners in [(10, 20, 50, 20), (30, 45, 30, 5)]:
        pil = 1 - np.asarray(render(white, [Line(1, "a", *corners)], style))[..., 0] / 255
        soft = hard("line", jnp.asarray(corners, jnp.float32))
        assert np.abs(pil - np.asarray(soft)).sum() <= 3  # at most one end's row of pixels


def test_mask_is_batched_and_ignores_padding():
    rng = np.random.default_rng(1)
    corners = jnp.asarray(rng.uniform(0, 50, (2, 3, 5, 4)), jnp.float32)
    valid = jnp.asarray(rng.random((2, 3, 5)) < 0.6)
    mask = jax.jit(lambda c, v: soft_mask("box", c, v, SIZE))(corners, valid)
    assert mask.shape == (2, 3, *SIZE) and float(mask.min()) >= 0 and float(mask.max()) <= 1
    one = jax.vmap(lambda c: soft_shape("box", c, SIZE, 3.0, 0.5))(corners[1, 2][valid[1, 2]])
    np.testing.assert_allclose(mask[1, 2], 1 - jnp.prod(1 - one, 0), atol=1e-5)
    gradient = jax.jit(jax.grad(lambda c: soft_mask("box", c, valid, SIZE).sum()))(corners)
    assert bool(jnp.isfinite(gradient).all()) and bool((gradient[~valid] == 0).all())


def test_render_paints_in_order():
    base = jnp.ones((*SIZE, 3))
    corners = jnp.asarray([[10, 10, 40, 40], [0, 10, 60, 10]], jnp.float32)
    colors = jnp.asarray([[1, 0, 0], [0, 0, 1]], jnp.float32)
    image = jax.jit(soft_render, static_argnames=("width", "softness"))(
        base, corners, colors, jnp.asarray([False, True]), softness=0.02
    )
    np.testing.assert_allclose(image[10, 20], [0, 0, 1], atol=1e-4)
    np.testing.assert_allclose(image[30, 10], [1, 0, 0], atol=1e-4)
    np.testing.assert_allclose(image[50, 50], [1, 1, 1], atol=1e-4)


def test_overlap_pulls_a_box_to_its_target():
    target = soft_shape("filled", jnp.asarray([20.0, 15.0, 45.0, 40.0]), SIZE, 1.0, 1.0)

    @jax.jit
    def loss(c):
        return 1 - soft_iou(soft_shape("filled", c, SIZE, 1.0, 4.0), target)

    corners = jnp.asarray([10.0, 5.0, 30.0, 30.0])
    before, step = loss(corners), jax.jit(jax.grad(loss))
    for _ in range(200):
        corners = corners - 20.0 * step(corners)
    assert loss(corners) < 0.7 * before
    np.testing.assert_allclose(corners, [20, 15, 45, 40], atol=3)
    assert float(soft_iou(target * 0, target * 0)) == 0


def test_overlap_is_one_only_where_masks_agree():
    blurred = soft_shape("filled", jnp.asarray([20.0, 15.0, 45.0, 40.0]), SIZE, 1.0, 4.0)
    assert float(soft_iou(blurred, blurred)) == pytest.approx(1, abs=1e-6)
    gradient = jax.grad(lambda a: soft_iou(a, blurred))(blurred)
    assert float(jnp.abs(gradient).max()) < 1e-6
    hard = (blurred > 0.5).astype(jnp.float32)
    moved = jnp.roll(hard, 5, axis=1)
    both, either = float((hard * moved).sum()), float(jnp.maximum(hard, moved).sum())
    assert float(soft_iou(hard, moved)) == pytest.approx(both / either)


def test_expected_numbers():
    logits = jnp.full((2, 7), -1e9).at[0, 3].set(0.0).at[1, 3].set(0.0).at[1, 5].set(0.0)
    values = jnp.asarray([14.0, 42.0, 70.0])
    np.testing.assert_allclose(expected_number(logits, jnp.asarray([1, 3, 5]), values), [42.0, 56.0])
