"""The overlay: redrawing from the clean base, corrections, two objects of one label, image numbers."""

import numpy as np
import pytest
from PIL import Image

from vilasr_jax.drawing import Box, Line, Overlay, get_style, render

STYLE = get_style("published", labels=False)
WHITE = (255, 255, 255)


def overlay(count: int = 1, size=(140, 140)) -> Overlay:
    return Overlay([Image.new("RGB", size, WHITE) for _ in range(count)], STYLE)


def pixels(image) -> np.ndarray:
    return np.asarray(image).astype(int)


def test_correction_leaves_no_old_pixels():
    """Fault 6: the old box stayed in the pixels."""
    moved = overlay()
    moved.apply([Box(1, "chair", 10, 10, 40, 40)])
    applied = moved.apply([Box(2, "chair", 60, 60, 100, 100)])  # names the drawn image
    fresh = overlay()
    fresh.apply([Box(1, "chair", 60, 60, 100, 100)])
    assert applied.corrected == 1 and applied.drawn == (3,)
    assert np.array_equal(pixels(moved.images[2]), pixels(fresh.images[1]))


def test_base_and_earlier_drawings_stay_clean():
    o = overlay()
    o.apply([Box(1, "a", 10, 10, 40, 40)])
    before = pixels(o.images[1])
    o.apply([Box(1, "b", 50, 50, 90, 90)])
    assert (pixels(o.images[0]) == 255).all()
    assert np.array_equal(pixels(o.images[1]), before)
    assert not np.array_equal(pixels(o.images[2]), before)


def test_two_objects_of_one_label_in_one_call():
    """Fault 5: the second box of a label replaced the first."""
    o = overlay()
    applied = o.apply([Box(1, "chair", 10, 10, 40, 40), Box(1, "chair", 60, 60, 100, 100)])
    assert applied.corrected == 0 and applied.drawn == (2,)
    drawn = pixels(o.images[1])
    assert tuple(drawn[10, 20]) != WHITE and tuple(drawn[60, 70]) != WHITE
    applied = o.apply([Box(1, "chair", 12, 12, 42, 42), Box(1, "chair", 62, 62, 102, 102)])
    assert applied.corrected == 2 and len(o.annotations(1)) == 2


def test_the_same_again_is_a_repeat():
    o = overlay()
    o.apply([Line(1, "1", 14, 14, 42, 14)])
    applied = o.apply([Line(2, "1", 14, 14, 42, 14)])
    assert (applied.corrected, applied.repeated, applied.drawn) == (0, 1, ())
    applied = o.apply([Line(2, "1", 14, 14, 42, 14), Line(2, "2", 42, 14, 42, 42)])
    assert (applied.corrected, applied.repeated, applied.drawn) == (0, 1, (3,))


def test_box_and_line_of_one_label_are_two_things():
    o = overlay()
    applied = o.apply([Box(1, "a", 10, 10, 40, 40), Line(1, "a", 10, 50, 90, 50)])
    assert applied.corrected == 0 and len(o.annotations(1)) == 2


def test_indices_over_five_turns_and_three_images():
    o = overlay(3)
    assert o.apply([Box(2, "a", 10, 10, 40, 40)]).drawn == (4,)
    assert o.apply([Box(4, "b", 50, 50, 90, 90)]).drawn == (5,)  # drawn image 4 is of base 2
    assert o.apply([Box(3, "c", 5, 5, 20, 20), Box(1, "d", 5, 5, 20, 20)]).drawn == (6, 7)
    assert o.apply([Box(9, "e", 5, 5, 20, 20)]).drawn == ()
    assert o.apply([Line(6, "f", 5, 50, 90, 50), Box(3, "g", 30, 5, 60, 20)]).drawn == (8,)
    assert [o.base(k) for k in range(1, 9)] == [1, 2, 3, 2, 2, 3, 1, 3]
    assert [call.label for call in o.annotations(2)] == ["a", "b"]
    assert [call.label for call in o.annotations(8)] == ["c", "f", "g"]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (Box(5, "a", 1, 1, 9, 9), "there is no image 5, only 1 to 1"),
        (Box(1, "a", 200, 200, 300, 300), "the box is outside the image (140 x 140)"),
        (Box(1, "a", 10, 10, 10, 30), "the box has no area"),
        (Line(1, "a", -50, -50, -10, -10), "the line is outside the image (140 x 140)"),
        (Line(1, "a", 10, 10, 10, 10), "the line starts where it ends"),
    ],
)
def test_errors(call, error):
    o = overlay()
    applied = o.apply([call, Box(1, "good", 20, 20, 60, 60)])
    assert applied.errors == (f"item 1: {error}",)
    assert applied.drawn == (2,) and [c.label for c in o.annotations(1)] == ["good"]


def test_far_coordinates_are_clipped():
    image = render(
        Image.new("RGB", (56, 28), WHITE),
        [
            Line(1, "a", -1e6, 10, 1e6, 10),
            Box(1, "b", -1e6, -1e6, 1e6, 20),
            Line(1, "c", 1e6, 1e6, -1e6, -1e6),
        ],
        get_style("clear"),
    )
    assert image.size == (56, 28) and (pixels(image)[10, 30] != 255).any()


def test_newest_ring_is_only_on_the_newest_end():
    style = get_style("maze")
    o = Overlay([Image.new("RGB", (84, 84), WHITE)], style)
    o.apply([Line(1, "1", 14, 14, 42, 14)])
    o.apply([Line(1, "2", 42, 14, 42, 42)])
    where = (pixels(o.images[2]) == style.ring_color).all(-1).nonzero()
    assert 30 <= where[0].min() and where[0].max() < 54 and 30 <= where[1].min() and where[1].max() < 54
    o.apply([Line(1, "1", 14, 14, 14, 42)])  # the corrected line is the newest again
    where = (pixels(o.images[3]) == style.ring_color).all(-1).nonzero()
    assert where[1].max() < 28
