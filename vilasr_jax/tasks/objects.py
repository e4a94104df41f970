"""Flat coloured objects on an image: their colours, shapes and a smooth drawing of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

Color = tuple[int, int, int]
Corners = tuple[int, int, int, int]

COLORS: dict[str, Color] = {
    "red": (222, 40, 40),
    "blue": (40, 90, 220),
    "green": (30, 150, 70),
    "yellow": (250, 205, 30),
    "purple": (140, 60, 190),
    "orange": (245, 125, 20),
    "cyan": (30, 185, 205),
    "pink": (245, 120, 180),
}
SHAPES = ("circle", "square", "triangle", "star")
SMOOTH = 3  # images are drawn this many times larger and then reduced


@dataclass(frozen=True)
class Look:
    """An image's background and the outline of objects."""

    background: Color = (255, 255, 255)
    outline: Color = (45, 45, 50)
    clutter: Color = (226, 228, 232)


LOOKS: dict[str, Look] = {
    "plain": Look(),
    "sand": Look((248, 238, 214), (90, 65, 40), (230, 214, 180)),
    "mist": Look((226, 236, 246), (40, 60, 95), (202, 216, 232)),
    "night": Look((34, 37, 46), (235, 235, 225), (56, 60, 72)),
}


@dataclass(frozen=True)
class Thing:
    """An object: its centre and half its extent, in pixels."""

    color: str
    shape: str
    x: float
    y: float
    radius: float
    name: str = ""

    def box(self, width: int, height: int) -> Corners:
        """The box around it in integer pixels, inside an image of this size."""
        left, top = math.floor(self.x - self.radius), math.floor(self.y - self.radius)
        right, bottom = math.ceil(self.x + self.radius), math.ceil(self.y + self.radius)
        return max(0, left), max(0, top), min(width, right), min(height, bottom)

    @property
    def point(self) -> tuple[int, int]:
        """Its centre in integer pixels."""
        return round(self.x), round(self.y)


def distance(a: Thing, b: Thing) -> float:
    """Pixels between two centres."""
    return math.hypot(a.x - b.x, a.y - b.y)


def draw_things(
    width: int, height: int, things: Sequence[Thing], look: Look, strokes: Sequence[Sequence[float]] = ()
) -> Image.Image:
    """The RGB image: background strokes (x1, y1, x2, y2, width), then the objects, the last on top."""
    image = Image.new("RGB", (width * SMOOTH, height * SMOOTH), look.background)
    draw = ImageDraw.Draw(image)
    for *ends, thick in strokes:
        draw.line([SMOOTH * end for end in ends], fill=look.clutter, width=round(SMOOTH * thick))
    for thing in things:
        draw_thing(draw, thing, look)
    return image.reduce(SMOOTH)


def frame(image: Image.Image, look: Look) -> Image.Image:
    """The image with a line around it, drawn on it."""
    ImageDraw.Draw(image).rectangle((0, 0, image.width - 1, image.height - 1), None, look.outline, 2)
    return image


def draw_thing(draw: ImageDraw.ImageDraw, thing: Thing, look: Look) -> None:
    """One object, on a canvas `SMOOTH` times larger than the image."""
    x, y, r = SMOOTH * thing.x, SMOOTH * thing.y, SMOOTH * thing.radius
    fill, edge = COLORS[thing.color], max(SMOOTH, round(r / 9))
    if thing.shape == "circle":
        draw.ellipse((x - r, y - r, x + r - 1, y + r - 1), fill, look.outline, edge)
        return
    if thing.shape == "square":
        draw.rectangle((x - 0.9 * r, y - 0.9 * r, x + 0.9 * r - 1, y + 0.9 * r - 1), fill, look.outline, edge)
        return
    if thing.shape == "triangle":
        corners = [(x, y - r), (x + r, y + 0.85 * r), (x - r, y + 0.85 * r)]
    else:
        turns = [math.pi * (k / 5 - 0.5) for k in range(10)]
        corners = [
            (x + r * (1, 0.48)[k % 2] * math.cos(turn), y + r * (1, 0.48)[k % 2] * math.sin(turn))
            for k, turn in enumerate(turns)
        ]
    draw.polygon(corners, fill)
    draw.line([*corners, corners[0], corners[1]], look.outline, edge, joint="curve")
