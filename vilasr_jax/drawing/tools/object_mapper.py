"""Object Mapper: a labelled box."""

from vilasr_jax.drawing.calls import Box
from vilasr_jax.drawing.tools.base import ItemError, Tool, read_index, read_label, read_numbers


class ObjectMapper(Tool):
    id = "object_mapper"
    name = "Object Mapper"
    keys = ("bbox_2d",)
    purpose = "marks objects with labelled boxes"
    example = '{"index": 1, "bbox_2d": [x1, y1, x2, y2], "label": "name"}'

    def read(self, item):
        x1, y1, x2, y2 = read_numbers(item, "bbox_2d", 4)
        return Box(
            read_index(item), read_label(item), min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
        )  # swapped corners are put right

    def apply(self, call, overlay):
        width, height = overlay.size(call.index)
        flat = call.x1 == call.x2 or call.y1 == call.y2
        begins_inside = call.x1 <= width and call.y1 <= height  # at the far edge, too
        if flat and overlay.coordinates and begins_inside and min(call.x2, call.y2) >= 0:
            raise ItemError("the box is less than a pixel wide or high")
        if call.x1 >= width or call.y1 >= height or call.x2 < 0 or call.y2 < 0:
            raise ItemError(f"the box is outside the image ({overlay.extent(call.index)})")
        if flat:
            raise ItemError("the box has no area")
        overlay.put(call)

    def draw(self, canvas, call, newest):
        canvas.box(call.x1, call.y1, call.x2, call.y2, call.label)
