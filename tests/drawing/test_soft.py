"""The soft renderer: gradients, agreement with PIL as it hardens, masks, overlap, expected numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vilasr_jax.drawing import Box, Line, Style, get_style, render
from vilasr_jax.drawing.soft import (
    expected_number,
    soft_iou,
    soft_mask,
    soft_render,
    soft_shape,
)

SIZE = (53, 67)  # height, width


@pytest.mark.parametrize("kind", ["box", "filled", "line"])
@pytest.mark.parametrize(
    "corners", [(10.3, 7.1, 41.2, 33.9), (20.0, 12.0, 50.0, 12.5), (41.2, 40.1, 10.3, 9.2)]
)
def test_gradient_agrees_with_finite_differences(kind, corners):
    weights = jnp.asarray(np.random.default_rng(0).normal(size=SIZE), jnp.float32)

    def loss(c):
        return (soft_shape(kind, c, SIZE, 3.0, 1.0) * weights).sum() / 10

    point = jnp.asarray(corners, jnp.float32)
    gradient, step = jax.grad(loss)(point), 3e-2
    for i in range(4):
        nudge = jnp.zeros(4).at[i].set(step)
        slope = (loss(point + nudge) - loss(point - nudge)) / (2 * step)
        assert abs(gradient[i] - slope) < 1e-3 * max(1.0, abs(slope))


@pytest.mark.parametrize("corners", [(10, 7, 41, 33), (3, 20, 60, 50), (30, 5, 35, 48)])
@pytest.mark.parametrize("kind", [Box, Line])
def test_hardens_to_pil(kind, corners):
    style = Style(labels=False, line_width=3, box_width=3, palette=((0, 0, 0),))
    white = Image.new("RGB", SIZE[::-1], "white")
    pil = 1 - np.asarray(render(white, [kind(1, "a", *corners)], style))[..., 0] / 255
    name = "box" if kind is Box else "line"
    soft = soft_shape(name, jnp.asarray(corners, jnp.float32), SIZE, 3.0, 0.02)
    edge = 2 * (corners[2] - corners[0] + corners[3] - corners[1])
    assert np.abs(pil - np.asarray(soft)).mean() < edge / 255
    if kind is Box:
        np.testing.assert_allclose(soft, pil, atol=1e-5)


def test_axis_aligned_lines_are_exact():
    style = get_style("maze", line_gap=0, newest_ring=0, line_width=3, palette=((0, 0, 0),))
    white = Image.new("RGB", SIZE[::-1], "white")
    for corners in [(10, 20, 50, 20), (30, 45, 30, 5)]:
        pil = 1 - np.asarray(render(white, [Line(1, "a", *corners)], style))[..., 0] / 255
        soft = soft_shape("line", jnp.asarray(corners, jnp.float32), SIZE, 3.0, 0.02)
        assert np.abs(pil - np.asarray(soft)).sum() <= 3  # at most one end's row of pixels


def test_mask_is_batched_and_ignores_padding():
    rng = np.random.default_rng(1)
    corners = jnp.asarray(rng.uniform(0, 50, (2, 3, 5, 4)), jnp.float32)
    valid = jnp.asarray(rng.random((2, 3, 5)) < 0.6)
    mask = jax.jit(lambda c, v: soft_mask("box", c, v, SIZE))(corners, valid)
    assert mask.shape == (2, 3, *SIZE) and float(mask.min()) >= 0 and float(mask.max()) <= 1
    one = [soft_shape("box", c, SIZE, 3.0, 0.5) for c in corners[1, 2][valid[1, 2]]]
    np.testing.assert_allclose(mask[1, 2], 1 - jnp.prod(1 - jnp.stack(one), 0), atol=1e-5)
    gradient = jax.grad(lambda c: soft_mask("box", c, valid, SIZE).sum())(corners)
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
