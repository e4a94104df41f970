"""Styles: the published look against pictures computed from geometry, and the clear one's legibility."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.drawing.published_reference import SCENES, paint
from vilasr_jax.bench.render import bench_render
from vilasr_jax.drawing import STYLES, Box, Line, Overlay, get_style, render
from vilasr_jax.drawing.canvas import assign_colors
from vilasr_jax.drawing.labels import contrast, ink, label_tile, place
from vilasr_jax.drawing.style import PALETTE
from vilasr_jax.errors import ConfigError


def white(width: int = 140, height: int | None = None) -> Image.Image:
    return Image.new("RGB", (width, height or width), "white")


def changed(image: Image.Image, base: Image.Image | None = None) -> np.ndarray:
    """[h, w] bool, the pixels that differ from the base (white)."""
    base = base or Image.new("RGB", image.size, "white")
    return (np.asarray(image) != np.asarray(base)).any(-1)


@pytest.mark.parametrize("number", range(len(SCENES)))
def test_published_style_is_the_published_one(number):
    """2 % of the pixels is the bar; those that differ must also be on the rim of a line or a dot."""
    size, boxes, lines = SCENES[number]
    calls = [Box(1, label, *c) for *c, label in boxes] + [Line(1, "way", *c) for c in lines]
    for base in (white(*size), Image.effect_noise(size, 60).convert("RGB")):
        expected = paint(base, boxes, lines)
        wrong = (np.asarray(render(base, calls, get_style("published"))) != expected).any(-1)
        assert wrong.mean() < 0.02
        assert not (wrong & ~rims(paint(white(*size), boxes, lines))).any()
        assert lines or not wrong.any()


def rims(picture: np.ndarray) -> np.ndarray:
    """[h, w] bool, pixels with a neighbour of another colour."""
    around = np.pad(picture.astype(int), ((1, 1), (1, 1), (0, 0)), mode="edge")
    (h, w), found = picture.shape[:2], np.zeros(picture.shape[:2], bool)
    for y, x in ((0, 1), (2, 1), (1, 0), (1, 2), (0, 0), (0, 2), (2, 0), (2, 2)):
        found |= (around[y : y + h, x : x + w] != picture).any(-1)
    return found


def test_published_lines_cover_boxes_and_colours_stay():
    overlay = Overlay([white(448)], get_style("published"))
    boxes = [Box(1, "a", 20, 20, 100, 100), Box(1, "b", 50, 150, 300, 300)]
    overlay.apply([Line(1, "way", 10, 200, 400, 200), *boxes])
    overlay.apply([Box(1, "a", 200, 20, 400, 250)])
    expected = paint(white(448), [(200, 20, 400, 250, "a"), (50, 150, 300, 300, "b")], [(10, 200, 400, 200)])
    assert (np.asarray(overlay.images[2]) != expected).any(-1).mean() < 0.003


@pytest.mark.parametrize("name", STYLES)
def test_labels_do_not_cover_the_picture(name):
    drawn = changed(render(white(448), [Box(1, "chair", 100, 100, 300, 300)], get_style(name)))
    assert drawn[100, 100:300].all() and drawn.mean() < 0.05
    assert name == "published" or not drawn[110:290, 110:290].any()


def test_every_label_colour_has_enough_contrast():
    for color in PALETTE:
        assert contrast(color, ink(color)) >= 4.5
    assert len(set(PALETTE)) == len(PALETTE) == 12
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)


def test_each_label_has_a_colour_of_its_own_that_stays():
    labels = tuple(f"thing {k}" for k in range(12))
    colors = assign_colors(labels, PALETTE)
    assert len(set(colors.values())) == 12
    for count in (1, 5, 11):
        assert assign_colors(labels[:count], PALETTE).items() <= colors.items()
    assert set(assign_colors((*labels, "one more"), PALETTE)) == {*labels, "one more"}


def test_crowded_labels_do_not_overlap():
    """Twelve boxes over each other: every label's plate is fully visible in the picture."""
    side = 448
    calls = [Box(1, f"thing {k}", 60 + 9 * k, 60 + 7 * k, 300 + 9 * k, 330 + 7 * k) for k in range(12)]
    style = get_style("clear")
    picture = np.asarray(render(Image.new("RGB", (side, side), (128, 128, 128)), calls, style))
    colors = assign_colors(tuple(call.label for call in calls), style.palette)
    for label, color in colors.items():
        tile = np.asarray(label_tile(label, 15, color, side))
        h, w = tile.shape[:2]
        inked = (picture == ink(color)).all(-1)  # as a plate's corners are
        found = zip(*(inked[: side - h + 1, : side - w + 1] & inked[h - 1 :, w - 1 :]).nonzero(), strict=True)
        assert any(np.array_equal(picture[y : y + h, x : x + w], tile) for y, x in found), label


def test_a_long_label_is_cut_to_the_picture():
    tile = label_tile("a very long label " * 4, 15, (214, 39, 40), 140)
    assert 100 < tile.width <= 140
    assert place((30, 10), [(-5, 200)], [], (100, 60)) == (0, 50, 30, 60)
    assert place((300, 10), [(5, 5)], [], (100, 60))[0] == 0


def test_arrow_heads_point_to_the_end():
    style = get_style("clear", labels=False, dots=0)
    there = changed(render(white(), [Line(1, "a", 20, 70, 120, 70)], style))
    back = changed(render(white(), [Line(1, "a", 120, 70, 20, 70)], style))
    right, left = slice(108, 121), slice(20, 33)
    for drawn, head, tail in ((there, right, left), (back, left, right)):
        assert drawn[:, head].any(1).sum() > 1.8 * drawn[:, tail].any(1).sum()
        assert drawn[:, 123:].sum() == drawn[:, :18].sum() == 0
    out = changed(render(white(), [Line(1, "a", 20, 70, 400, 70)], style))
    assert out[:, -5:].sum() == out[:, 60:65].sum()  # what leaves the picture has no head at its border


def test_sizes_scale_with_the_image():
    style = get_style("clear", reference=140, labels=False)
    small = changed(render(white(140), [Box(1, "", 20, 20, 90, 90)], style)).sum()
    large = changed(render(white(280), [Box(1, "", 40, 40, 180, 180)], style)).sum()
    assert 3.5 < large / small < 4.5
    fractions = []
    for side in (140, 448, 1036):
        call = Box(1, "cup", side // 4, side // 4, side // 2, side // 2)
        fractions.append(changed(render(white(side), [call], get_style("clear"))).mean())
    assert max(fractions[1:]) < 1.3 * min(fractions[1:]) and fractions[0] < 0.15


def test_unknown_style_is_the_users_error():
    with pytest.raises(ConfigError, match="style 'neon' does not exist; there are published"):
        get_style("neon")


_COORDINATE = st.one_of(st.floats(-1e9, 1e9), st.integers(-20, 200))
_CALL = st.builds(
    lambda kind, label, c: kind(1, label, min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3])),
    st.sampled_from([Box, Line]),
    st.text(max_size=12).map(lambda t: "".join(c for c in t if c.isprintable())),
    st.tuples(_COORDINATE, _COORDINATE, _COORDINATE, _COORDINATE),
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(_CALL, max_size=5),
    st.sampled_from(sorted(STYLES)),
    st.sampled_from([(28, 28), (28, 280), (140, 84), (1, 1)]),
)
def test_any_call_in_any_style(calls, name, size):
    base = Image.new("RGB", size, "white")
    start = time.process_time()
    drawn = render(base, calls, get_style(name))
    assert time.process_time() - start < 5  # coordinates far outside are clipped, not walked
    assert drawn.size == size and drawn.mode == "RGB"
    assert (np.asarray(base) == 255).all()
    assert drawn.tobytes() == render(base, calls, get_style(name)).tobytes()


def test_bench_counts_pictures():
    (record,) = bench_render(sides=(140,), workers=(1,), seconds=0.05)
    assert record["drawings_per_second"] > 0 and record["copies_per_second"] > record["drawings_per_second"]
