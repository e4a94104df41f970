"""Labels: text on a plate that is readable on any image, and the choice of a free place."""

import functools
import math
from collections.abc import Iterable, Iterator, Sequence

from PIL import Image, ImageDraw

from vilasr_jax.drawing.style import Color
from vilasr_jax.drawing.text import draw_text, text_width

Rect = tuple[float, float, float, float]  # left, top, right, bottom; the last two are outside
Spot = tuple[float, float]  # left and top of a label
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def contrast(a: Color, b: Color) -> float:
    """Contrast of two colours, 1 to 21 (WCAG 2.2: 4.5 is enough for text)."""
    light, dark = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: Color) -> float:
    linear = [c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@functools.lru_cache(maxsize=256)
def ink(color: Color) -> Color:
    """Black or white, whichever has more contrast with a colour (at least 4.5)."""
    return max((BLACK, WHITE), key=lambda other: contrast(color, other))


@functools.lru_cache(maxsize=512)
def label_tile(text: str, size: int, color: Color, most: int) -> Image.Image:
    """A label on a plate of its colour, at most `most` pixels wide: what does not fit is cut ("...")."""
    pad = max(2, size // 5)
    room = most - 2 * pad
    if text_width(text, size) > room:
        while text and text_width(text + "...", size) > room:
            text = text[:-1]
        text += "..."
    tile = Image.new("RGB", (math.ceil(text_width(text, size)) + 2 * pad, round(size * 1.25) + 2), color)
    draw = ImageDraw.Draw(tile)
    draw_text(draw, (pad, tile.height / 2), text, ink(color), size, anchor="lm")
    draw.rectangle((0, 0, tile.width - 1, tile.height - 1), outline=ink(color))
    return tile


def place(
    size: tuple[int, int], spots: Iterable[Spot], occupied: Sequence[Rect], within: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Chooses a label's place: the first free spot, else the one that hides least.

    Args:
      size: (width, height) of the label.
      spots: candidates, the best first; each is moved into the image, which counts against it.
      occupied: rectangles of other labels and of arrow heads.
      within: (width, height) of the image.
    """
    (width, height), (most_x, most_y) = size, (within[0] - size[0], within[1] - size[1])
    best, least = (0, 0, width, height), math.inf
    for rank, (x, y) in enumerate(spots):
        left = 0 if x < 0 or most_x < 0 else most_x if x > most_x else round(x)
        top = 0 if y < 0 or most_y < 0 else most_y if y > most_y else round(y)
        right, bottom = left + width, top + height
        cost = 2 * (abs(left - x) + abs(top - y)) + 3 * rank
        for l, t, r, b in occupied:  # noqa: E741
            if l < right and left < r and t < bottom and top < b:
                cost += (min(right, r) - max(left, l)) * (min(bottom, b) - max(top, t))
        if cost < least:
            best, least = (left, top, right, bottom), cost
        if least <= 3 * rank + 2:  # no later spot can be better by much
            break
    return best


def box_spots(box: Rect, size: tuple[int, int], width: int) -> Iterator[Spot]:
    """Places for a box's label: above it, below it, then inside and at its sides."""
    (left, top, right, bottom), (w, h) = box, size
    yield left, top - h
    yield left, bottom
    yield right - w, top - h
    yield right - w, bottom
    yield left + width, top + width
    yield right, top
    yield left - w, top
    yield left + width, bottom - width - h
    yield right - width - w, top + width
    yield right, bottom - h
    yield left - w, bottom - h
    yield right - width - w, bottom - width - h


def line_spots(a: Spot, b: Spot, size: tuple[int, int], width: float) -> Iterator[Spot]:
    """Places for a line's label: on both sides of its middle, then nearer to its ends."""
    (ax, ay), (bx, by), (w, h) = a, b, size
    dx, dy = bx - ax, by - ay
    length = math.hypot(dx, dy) or 1.0
    away = (abs(dy) * w + abs(dx) * h) / (2 * length) + width / 2 + 1
    nx, ny = away * dy / length, away * dx / length
    if dx < 0:  # the first side is the upper one
        nx, ny = -nx, -ny
    for fraction in (0.5, 0.35, 0.65, 0.2, 0.8):
        x, y = ax + dx * fraction - w / 2, ay + dy * fraction - h / 2
        yield x + nx, y - ny
        yield x - nx, y + ny
