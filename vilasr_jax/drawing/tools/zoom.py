"""Zoom: a region of an image as a new image of about the same size."""

import math
from dataclasses import dataclass
from typing import ClassVar

from PIL import Image

from vilasr_jax.drawing.calls import Call
from vilasr_jax.drawing.tools.base import ItemError, Tool, read_index, read_label, read_numbers

LEAST = 14  # pixels per side of a region; half a token's side where that is more
MOST_SCALE = 8.0


@dataclass(frozen=True, slots=True)
class Region(Call):
    """The region of the clean base under image `index` to look at."""

    tool: ClassVar[str] = "zoom"
    x1: float
    y1: float
    x2: float
    y2: float


class Zoom(Tool):
    id = "zoom"
    name = "Zoom"
    function = "image_zoom_in_tool"
    keys = ("bbox_2d",)  # as Object Mapper's: the action's name distinguishes them
    purpose = "shows a region of an image, enlarged, as a new image"
    example = '{"index": 1, "bbox_2d": [x1, y1, x2, y2], "label": "name"}'

    def read(self, item):
        x1, y1, x2, y2 = read_numbers(item, "bbox_2d", 4)
        label = read_label(item)
        return Region(read_index(item), label, min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))

    def apply(self, call, overlay):
        width, height = overlay.size(call.index)
        left, top = max(0, math.floor(call.x1)), max(0, math.floor(call.y1))
        right, bottom = min(width, math.ceil(call.x2)), min(height, math.ceil(call.y2))
        least = max(LEAST, overlay.image_unit // 2)
        if right - left < least or bottom - top < least:
            raise ItemError(f"the region inside the image is less than {overlay.sides(call.index, least)}")
        overlay.add_image(
            call.index, lambda base: enlarge(base, (left, top, right, bottom), overlay.image_unit)
        )


def enlarge(base: Image.Image, box: tuple[int, int, int, int], unit: int) -> Image.Image:
    """Enlarges the region `box` to about the area of `base`, and never more: the pixel limit holds.

    Args:
      base: clean image.
      box: left, top, right, bottom in pixels.
      unit: pixels that the sides of the new image are multiples of.
    """
    region = base.crop(box)
    area = base.width * base.height
    scale = min(MOST_SCALE, math.sqrt(area / (region.width * region.height)))
    sides = [max(1, round(side * scale / unit)) for side in region.size]  # in units
    most = area // unit**2
    if sides[0] * sides[1] > most:
        sides = [max(1, math.floor(side * scale / unit)) for side in region.size]
        short = min(sides)
        sides = [min(side, most // short) for side in sides]
    return region.resize((sides[0] * unit, sides[1] * unit), Image.Resampling.BICUBIC)
