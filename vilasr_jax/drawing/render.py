"""The PIL renderer: draws annotations on a copy of the clean base image."""

import functools
import math
import zlib
from collections.abc import Iterable

from PIL import Image, ImageDraw, ImageFont

from vilasr_jax.drawing.calls import Call
from vilasr_jax.drawing.geometry import clip_line
from vilasr_jax.drawing.style import Color, Style
from vilasr_jax.drawing.tools import TOOLS


def render(base: Image.Image, calls: Iterable[Call], style: Style) -> Image.Image:
    """A drawn copy of `base` (RGB). The last call is the newest and lies on top."""
    canvas = Canvas(base.copy(), style)
    calls = list(calls)
    for number, call in enumerate(calls, 1):
        TOOLS[call.tool].draw(canvas, call, newest=number == len(calls))
    canvas.finish()
    return canvas.image


@functools.lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


@functools.lru_cache(maxsize=128)
def _label_tile(text: str, size: int, color: Color, plate: bool) -> tuple[Image.Image, Image.Image | None]:
    """A label's pixels, and the mask to paste them with (None: all of them)."""
    font = _font(size)
    tile_size = (math.ceil(font.getlength(text)) + 4, size + 4)
    if plate:
        bright = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
        tile = Image.new("RGB", tile_size, color)
        ink = (0, 0, 0) if bright > 150 else (255, 255, 255)
        ImageDraw.Draw(tile).text((2, 2), text, fill=ink, font=font)
        return tile, None
    mask = Image.new("L", tile_size)
    ImageDraw.Draw(mask).text((2, 2), text, fill=255, font=font)
    return Image.new("RGB", tile_size, color), mask


@functools.lru_cache(maxsize=4096)
def label_color(label: str, palette: tuple[Color, ...]) -> Color:
    """The colour of a label: the same in every image, turn and process."""
    return palette[zlib.crc32(label.encode("utf-8", "replace")) % len(palette)]


def _shortened(ax: int, ay: int, bx: int, by: int, gap: float) -> tuple[int, int, int, int]:
    """A line with `gap` pixels taken from each end; a short line keeps its middle third."""
    if not gap:
        return ax, ay, bx, by
    length = math.hypot(bx - ax, by - ay)
    part = min(gap / length, 1 / 3) if length else 0.0
    dx, dy = (bx - ax) * part, (by - ay) * part
    return round(ax + dx), round(ay + dy), round(bx - dx), round(by - dy)


class Canvas:
    """A picture being drawn on in one style. Coordinates are clipped, so a far one costs nothing.

    Labels and the ring wait until `finish`, so that no later line hides them.
    """

    def __init__(self, image: Image.Image, style: Style):
        self.image, self.style = image, style
        self.width, self.height = image.size
        self.draw = ImageDraw.Draw(image)
        self.scale = min(image.size) / style.reference if style.reference else 1.0
        self._ring: tuple[float, float] | None = None
        self._labels: list[tuple[float, float, str, Color]] = []

    def color(self, label: str) -> Color:
        """The colour of a label in this style."""
        return label_color(label, self.style.palette)

    def pixels(self, size: float) -> int:
        """A style's size in pixels of this image."""
        return max(1, round(size * self.scale))

    def box(self, x1: float, y1: float, x2: float, y2: float, label: str) -> None:
        """A box outline with its label above (inside, where there is no room above)."""
        color, width = self.color(label), self.pixels(self.style.box_width)
        left, right = (round(min(max(x, -width), self.width + width)) for x in (x1, x2))
        top, bottom = (round(min(max(y, -width), self.height + width)) for y in (y1, y2))
        self.draw.rectangle((left, top, right, bottom), outline=color, width=width)
        self.note(x1, y1, label)

    def line(self, x1: float, y1: float, x2: float, y2: float, label: str, newest: bool) -> None:
        """A line with the style's arrow head, end dots and, on the newest, a ring."""
        clipped = clip_line(x1, y1, x2, y2, self.width, self.height)
        if clipped is None:
            return
        style, color = self.style, self.color(label)
        ax, ay, bx, by = (round(c) for c in clipped)
        ends = _shortened(ax, ay, bx, by, style.line_gap * self.scale)
        self.draw.line(ends, fill=color, width=self.pixels(style.line_width))
        if style.arrow:
            self._arrow(ax, ay, bx, by, color)
        if style.dots:
            self.dot(ax, ay, style.dots, color)
        if newest and style.newest_ring:
            self._ring = (bx, by)
        self.note((ax + bx) / 2, (ay + by) / 2, label)

    def dot(self, x: float, y: float, radius: float, color: Color) -> None:
        """A filled disc; `radius` in style units."""
        r = self.pixels(radius)
        self.draw.ellipse((x - r, y - r, x + r, y + r), fill=color)

    def note(self, x: float, y: float, text: str, *, always: bool = False) -> None:
        """Words at a place, drawn in `finish`; without `always` only where the style shows labels."""
        if self.style.labels or always:
            self._labels.append((x, y, text, self.color(text)))

    def finish(self) -> None:
        """Draws what lies on top: the ring and the labels."""
        if self._ring:
            (x, y), r = self._ring, self.pixels(self.style.newest_ring)
            width = self.pixels(self.style.ring_width)
            box = (x - r, y - r, x + r - 1, y + r - 1)
            self.draw.ellipse(box, outline=self.style.ring_color, width=width)
        for x, y, text, color in self._labels:
            self._label(x, y, text, color)

    def _arrow(self, ax: int, ay: int, bx: int, by: int, color: Color) -> None:
        length = math.hypot(bx - ax, by - ay)
        size = min(self.pixels(self.style.arrow), length)
        if length == 0:
            return
        ux, uy = (bx - ax) / length, (by - ay) / length
        foot, half = (bx - ux * size, by - uy * size), size * 0.5
        left = (foot[0] - uy * half, foot[1] + ux * half)
        right = (foot[0] + uy * half, foot[1] - ux * half)
        self.draw.polygon([(bx, by), left, right], fill=color)

    def _label(self, x: float, y: float, text: str, color: Color) -> None:
        if not text:
            return
        size = max(8, self.pixels(self.style.label_size))
        tile, mask = _label_tile(text, size, color, self.style.label_background)
        left = round(max(0, min(x, self.width - tile.width)))
        top = y - tile.height if y >= tile.height else y
        top = round(max(0, min(top, self.height - tile.height)))
        self.image.paste(tile, (left, top), mask)
