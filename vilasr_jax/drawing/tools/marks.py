"""Point and Text: a labelled dot, and words at a place."""

from dataclasses import dataclass
from typing import ClassVar

from vilasr_jax.drawing.calls import Call
from vilasr_jax.drawing.tools.base import ItemError, Tool, read_index, read_label, read_numbers


@dataclass(frozen=True, slots=True)
class Dot(Call):
    """A dot at `(x, y)`."""

    tool: ClassVar[str] = "point"
    points: ClassVar[bool] = True
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Words(Call):
    """The label written at `(x, y)`."""

    tool: ClassVar[str] = "text"
    points: ClassVar[bool] = True
    x: float
    y: float


class _Mark(Tool):
    call: type

    def read(self, item):
        x, y = read_numbers(item, self.keys[0], 2)
        return self.call(read_index(item), read_label(item), x, y)

    def apply(self, call, overlay):
        width, height = overlay.size(call.index)
        if not (0 <= call.x < width and 0 <= call.y < height):
            raise ItemError(f"the place is outside the image ({overlay.extent(call.index)})")
        overlay.put(call)


class PointMark(_Mark):
    id = "point"
    name = "Point"
    keys = ("point_2d",)
    purpose = "marks places with labelled dots"
    example = '{"index": 1, "point_2d": [x, y], "label": "name"}'
    call = Dot

    def draw(self, canvas, call, newest):
        canvas.mark(call.x, call.y, call.label)


class TextMark(_Mark):
    id = "text"
    name = "Text"
    keys = ("text_point_2d",)
    purpose = "writes the label at a place"
    example = '{"index": 1, "text_point_2d": [x, y], "label": "words"}'
    call = Words

    def draw(self, canvas, call, newest):
        canvas.words(call.x, call.y, call.label)
