"""The canvas that tools draw on: an image in one style."""

import functools
import math
import zlib
from collections.abc import Callable, Iterable, Sequence

from PIL import Image, ImageDraw

from vilasr_jax.drawing.geometry import clip_line
from vilasr_jax.drawing.labels import Rect, Spot, box_spots, ink, label_tile, line_spots, place
from vilasr_jax.drawing.style import Color, Style


@functools.lru_cache(maxsize=4096)
def label_color(label: str, palette: tuple[Color, ...]) -> Color:
    """The colour of a label by itself: the same in every image, turn and process."""
    return palette[_slot(label, len(palette))]


def _slot(label: str, count: int) -> int:
    return zlib.crc32(label.encode("utf-8", "replace")) % count


@functools.lru_cache(maxsize=1024)
def assign_colors(labels: tuple[str, ...], palette: tuple[Color, ...]) -> dict[str, Color]:
    """A colour for each label: its own (`label_color`), or the next free one where an earlier label has that.

    Labels are in order of first appearance, so what is drawn later changes no colour.
    """
    colors: dict[str, Color] = {}
    for label in dict.fromkeys(labels):
        first = _slot(label, len(palette))
        turned = palette[first:] + palette[:first]
        used = set(colors.values())
        colors[label] = next((color for color in turned if color not in used), turned[0])
    return colors


def shortened(ax: int, ay: int, bx: int, by: int, gap: float) -> tuple[int, int, int, int]:
    """A line shortened by `gap` pixels at each end; of a short line the middle third remains."""
    if not gap:
        return ax, ay, bx, by
    length = math.hypot(bx - ax, by - ay)
    part = min(gap / length, 1 / 3) if length else 0.0
    dx, dy = (bx - ax) * part, (by - ay) * part
    return round(ax + dx), round(ay + dy), round(bx - dx), round(by - dy)


def _middle(points: Sequence[Spot]) -> tuple[int, int]:
    return round(sum(x for x, _ in points) / len(points)), round(sum(y for _, y in points) / len(points))


class Canvas:
    """An image being drawn on. Coordinates are clipped, so far ones are cheap.

    `finish` draws the labels and the ring last, so no line hides them, and labels do not overlap.
    """

    def __init__(self, image: Image.Image, style: Style, labels: Sequence[str] = ()):
        self.image, self.style = image, style
        self.width, self.height = image.size
        self.draw = ImageDraw.Draw(image)
        scale = min(image.size) / style.reference if style.reference else 1.0
        self.scale = max(scale, style.least_scale)
        self.rim = self.pixels(style.rim) if style.rim else 0
        self._colors = assign_colors(tuple(labels), style.palette)
        self._ring: tuple[float, float] | None = None
        self._labels: list[tuple[str, Callable[[tuple[int, int]], Iterable[Spot]]]] = []
        self._occupied: list[Rect] = []

    def color(self, label: str) -> Color:
        """The colour of a label on this canvas."""
        return self._colors.get(label) or label_color(label, self.style.palette)

    def pixels(self, size: float) -> int:
        """A style's size in pixels of this image."""
        return max(1, round(size * self.scale))

    def box(self, x1: float, y1: float, x2: float, y2: float, label: str) -> None:
        """A box outline, drawn inwards, with its label."""
        color, width, rim = self.color(label), self.pixels(self.style.box_width), self.rim
        left, right = (round(min(max(x, -self.width), 2 * self.width)) for x in (x1, x2))
        top, bottom = (round(min(max(y, -self.height), 2 * self.height)) for y in (y1, y2))
        if rim:
            outer = (left - rim, top - rim, right + rim, bottom + rim)
            self.draw.rectangle(outer, outline=ink(color), width=width + 2 * rim)
        self.draw.rectangle((left, top, right, bottom), outline=color, width=width)
        seen = (
            max(left - rim, 0),
            max(top - rim, 0),
            min(right + 1 + rim, self.width),
            min(bottom + 1 + rim, self.height),
        )
        self._note(label, lambda size: box_spots(seen, size, width + rim))

    def line(self, x1: float, y1: float, x2: float, y2: float, label: str, newest: bool) -> None:
        """A line with the style's arrow head, start dot, label and, on the newest, a ring."""
        clipped = clip_line(x1, y1, x2, y2, self.width, self.height)
        if clipped is None:
            return
        style, color, rim = self.style, self.color(label), self.rim
        ax, ay, bx, by = (round(c) for c in clipped)
        width = self.pixels(style.line_width)
        reaches = (round(x2), round(y2)) == (bx, by)  # its end is in the image
        head = self._head(ax, ay, bx, by) if style.arrow and reaches else []
        ex, ey = _middle(head) if head else (bx, by)  # inside the head, so that its tip is sharp
        ends = shortened(ax, ay, ex, ey, style.line_gap * self.scale)
        if rim:
            self.draw.line(ends, fill=ink(color), width=width + 2 * rim)
        if style.dots and (round(x1), round(y1)) == (ax, ay):
            self.dot(ax, ay, style.dots, color)
        self.draw.line(ends, fill=color, width=width)
        if head:
            self.draw.polygon(head, fill=color, outline=ink(color) if rim else None, width=rim)
            xs, ys = [p[0] for p in head], [p[1] for p in head]
            self._occupied.append((min(xs), min(ys), max(xs), max(ys)))
        if newest and style.newest_ring:
            self._ring = (bx, by)
        self._note(label, lambda size: line_spots((ax, ay), (bx, by), size, width + 2 * rim))

    def dot(self, x: float, y: float, radius: float, color: Color) -> None:
        """A filled disc; `radius` in style units."""
        r = self.pixels(radius)
        self.draw.ellipse((x - r, y - r, x + r, y + r), fill=color, outline=ink(color) if self.rim else None)

    def mark(self, x: float, y: float, label: str) -> None:
        """A dot with its label next to it."""
        radius = self.style.line_width * 1.5
        self.dot(x, y, radius, self.color(label))
        r = self.pixels(radius) + 1
        self._occupied.append((x - r, y - r, x + r, y + r))
        self._note(label, lambda size: box_spots((x - r, y - r, x + r, y + r), size, 0))

    def words(self, x: float, y: float, text: str) -> None:
        """Text with its lower left corner at (x, y), moved only as far as needed to stay inside the image."""
        self._labels.append((text, lambda size: [(x, y - size[1])]))

    def _note(self, label: str, spots: Callable[[tuple[int, int]], Iterable[Spot]]) -> None:
        if self.style.labels:
            self._labels.append((label, spots))

    def finish(self) -> None:
        """Draws the top layer: the ring and the labels."""
        if self._ring:
            (x, y), r = self._ring, self.pixels(self.style.newest_ring)
            width = self.pixels(self.style.ring_width)
            box = (x - r, y - r, x + r - 1, y + r - 1)
            self.draw.ellipse(box, outline=self.style.ring_color, width=width)
        size = max(9, self.pixels(self.style.label_size))
        for text, spots in self._labels:
            if text:
                tile = label_tile(text, size, self.color(text), self.width)
                rect = place(tile.size, spots(tile.size), self._occupied, self.image.size)
                self._occupied.append(rect)
                self.image.paste(tile, (rect[0], rect[1]))

    def _head(self, ax: int, ay: int, bx: int, by: int) -> list[Spot]:
        """The arrow head's corners, the tip first; none for a point."""
        length = math.hypot(bx - ax, by - ay)
        if length == 0:
            return []
        size = min(self.pixels(self.style.arrow), 0.7 * length)
        ux, uy = (bx - ax) / length, (by - ay) / length
        x, y, half = bx - ux * size, by - uy * size, size * 0.45
        return [(bx, by), (x - uy * half, y + ux * half), (x + uy * half, y - ux * half)]
