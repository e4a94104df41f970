"""Path Tracer: a labelled line from one point to another."""

from vilasr_jax.drawing.calls import Line
from vilasr_jax.drawing.geometry import clip_line
from vilasr_jax.drawing.tools.base import ItemError, Tool, read_index, read_label, read_numbers


class PathTracer(Tool):
    id = "path_tracer"
    name = "Path Tracer"
    keys = ("start_point_2d", "end_point_2d")
    purpose = "draws labelled lines from a start point to an end point"
    example = '{"index": 1, "start_point_2d": [x1, y1], "end_point_2d": [x2, y2], "label": "name"}'

    def read(self, item):
        start = read_numbers(item, "start_point_2d", 2)
        end = read_numbers(item, "end_point_2d", 2)
        return Line(read_index(item), read_label(item), *start, *end)

    def apply(self, call, overlay):
        width, height = overlay.size(call.index)
        if clip_line(call.x1, call.y1, call.x2, call.y2, width, height) is None:
            raise ItemError(f"the line is outside the image ({overlay.extent(call.index)})")
        if (call.x1, call.y1) == (call.x2, call.y2):
            point = "is less than a pixel long" if overlay.coordinates else "starts where it ends"
            raise ItemError(f"the line {point}")
        overlay.put(call)

    def draw(self, canvas, call, newest):
        canvas.line(call.x1, call.y1, call.x2, call.y2, call.label, newest)
