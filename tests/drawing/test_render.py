"""Styles against pictures made from geometry alone, and what must hold for every style."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vilasr_jax.drawing import STYLES, Box, Line, get_style, render
from vilasr_jax.drawing.bench import bench_render
from vilasr_jax.errors import ConfigError

SIDE = 140


def box_mask(x1, y1, x2, y2, width) -> np.ndarray:
    """Outline drawn inward from the corners, inclusive, in plain NumPy."""
    y, x = np.mgrid[:SIDE, :SIDE]
    outer = (x >= x1) & (x <= x2) & (y >= y1) & (y <= y2)
    inner = (x >= x1 + width) & (x <= x2 - width) & (y >= y1 + width) & (y <= y2 - width)
    return outer & ~inner


def line_mask(x1, y1, x2, y2, width) -> np.ndarray:
    """All pixels within half the width of the segment."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(float)
    length = np.hypot(x2 - x1, y2 - y1)
    ux, uy = (x2 - x1) / length, (y2 - y1) / length
    along = (x - x1) * ux + (y - y1) * uy
    across = np.abs((x - x1) * uy - (y - y1) * ux)
    return (along >= 0) & (along <= length) & (across <= width / 2)


def arrow_mask(x1, y1, x2, y2, size) -> np.ndarray:
    """The triangle at the end point: `size` long, as wide."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(float)
    length = np.hypot(x2 - x1, y2 - y1)
    ux, uy = (x2 - x1) / length, (y2 - y1) / length
    back = (x2 - x) * ux + (y2 - y) * uy
    across = np.abs((x - x2) * uy - (y - y2) * ux)
    return (back >= 0) & (back <= size) & (across <= back / 2)


BOXES = [(10, 20, 90, 70), (0, 0, 139, 139), (50, 5, 60, 130)]
LINES = [(10, 10, 120, 10), (70, 130, 70, 20), (20, 30, 110, 100), (130, 15, 20, 60)]


@pytest.mark.parametrize("coords", BOXES)
def test_published_box(coords):
    style = get_style("published", labels=False)
    drawn = render(Image.new("RGB", (SIDE, SIDE), "white"), [Box(1, "a", *coords)], style)
    found = (np.asarray(drawn) == style.palette[0]).all(-1)
    assert (found != box_mask(*coords, style.box_width)).mean() == 0


@pytest.mark.parametrize("coords", LINES)
def test_published_line(coords):
    style = get_style("published", labels=False)
    drawn = render(Image.new("RGB", (SIDE, SIDE), "white"), [Line(1, "a", *coords)], style)
    found = (np.asarray(drawn) == style.palette[0]).all(-1)
    expected = line_mask(*coords, style.line_width) | arrow_mask(*coords, style.arrow)
    assert (found != expected).sum() <= 0.3 * expected.sum()  # pixels on the rim
    assert (found != expected).mean() < 0.01


@pytest.mark.parametrize("name", STYLES)
def test_labels_do_not_cover_the_picture(name):
    drawn = render(
        Image.new("RGB", (448, 448), "white"), [Box(1, "chair", 100, 100, 300, 300)], get_style(name)
    )
    changed = (np.asarray(drawn) != 255).any(-1)
    assert changed[100, 100:300].all() and changed.mean() < 0.05


def test_sizes_follow_the_image():
    call = [Box(1, "", 20, 20, 90, 90)]
    big = [Box(1, "", 40, 40, 180, 180)]
    style = get_style("clear", reference=140, labels=False)
    small = (np.asarray(render(Image.new("RGB", (140, 140), "white"), call, style)) != 255).any(-1).sum()
    large = (np.asarray(render(Image.new("RGB", (280, 280), "white"), big, style)) != 255).any(-1).sum()
    assert 3.5 < large / small < 4.5


def test_unknown_style_is_the_users_error():
    with pytest.raises(ConfigError, match="style 'neon' does not exist; there are published"):
        get_style("neon")


_COORDINATE = st.one_of(st.floats(-1e6, 1e6), st.integers(-20, 200))
_CALL = st.builds(
    lambda kind, label, c: kind(1, label, min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3])),
    st.sampled_from([Box, Line]),
    st.text(max_size=12).map(lambda t: "".join(c for c in t if c.isprintable())),
    st.tuples(_COORDINATE, _COORDINATE, _COORDINATE, _COORDINATE),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(_CALL, max_size=5),
    st.sampled_from(sorted(STYLES)),
    st.sampled_from([(28, 28), (28, 280), (140, 84)]),
)
def test_any_call_in_any_style(calls, name, size):
    base = Image.new("RGB", size, "white")
    drawn = render(base, calls, get_style(name))
    assert drawn.size == size and drawn.mode == "RGB"
    assert (np.asarray(base) == 255).all()
    assert drawn.tobytes() == render(base, calls, get_style(name)).tobytes()


def test_bench_counts_pictures():
    (record,) = bench_render(sides=(140,), workers=(1,), seconds=0.05)
    assert record["drawings_per_second"] > 0 and record["copies_per_second"] > record["drawings_per_second"]
