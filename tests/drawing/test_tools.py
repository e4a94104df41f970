"""The tools that are off by default, and prompt and parser for the enabled ones."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vilasr_jax.drawing import PUBLISHED, TOOLS, DrawingSession, DrawingSettings, get_tools, parse_actions
from vilasr_jax.drawing.tools.zoom import enlarge
from vilasr_jax.errors import ConfigError

ALL = tuple(TOOLS)


def turn(action: str, item: str) -> str:
    return f"<think> so </think> Action: {action}\n```json\n[{item}]\n```"


def session(**changes) -> DrawingSession:
    image = Image.effect_noise((112, 84), 40).convert("RGB")
    settings = DrawingSettings(tools=ALL, style="clear", image_unit=28, **changes)
    return DrawingSession([image], "Where?", settings=settings)


BOX = '{"index": 1, "bbox_2d": [28, 14, 84, 70], "label": "cup"}'


def test_off_by_default():
    published = DrawingSession([Image.new("RGB", (28, 28))], "?").messages[0]["content"][0]["text"]
    enabled = session().messages[0]["content"][0]["text"]
    for id_, tool in TOOLS.items():
        assert (f"- {tool.name}: " in published) == (id_ in PUBLISHED)
        assert f"- {tool.name}: " in enabled
    assert parse_actions(turn("Erase", '{"index": 1, "label": "cup"}')).calls == ()


def test_every_example_is_read_by_its_own_tool():
    for tool in TOOLS.values():
        example = tool.example
        for name, value in {
            "x1": "14",
            "y1": "15",
            "x2": "80",
            "y2": "60",
            "[x": "[30",
            " y]": " 40]",
        }.items():
            example = example.replace(name, value)
        parsed = parse_actions(turn(tool.name, example), get_tools(ALL))
        assert [call.tool for call in parsed.calls] == [tool.id] and parsed.action == tool.name
        assert parsed.strict_format and not parsed.errors


def test_erase():
    s = session()
    s.step(turn("Object Mapper", BOX))
    reply = s.step(turn("Erase", '{"index": 2, "label": "cup"}'))
    assert reply.drawn == 1 and s.images[2].tobytes() == s.images[0].tobytes()
    reply = s.step(turn("Erase", '{"index": 2, "label": "cup"}'))
    assert reply.error == "item 1: nothing of that label is drawn on that image"


def test_zoom_is_a_new_base():
    s = session()
    reply = s.step(turn("Zoom", BOX))
    assert reply.drawn == 1 and s.images[1].size == (84, 84)
    s.step(turn("Object Mapper", BOX.replace('"index": 1', '"index": 2')))
    assert pickle.loads(pickle.dumps(s)).images[1].tobytes() == s.images[1].tobytes()
    changed = (np.asarray(s.images[2]) != np.asarray(s.images[1])).any(-1)
    assert 0 < changed.mean() < 0.5
    reply = s.step(turn("Zoom", '{"index": 1, "bbox_2d": [0, 0, 5, 80], "label": "a"}'))
    assert reply.error == "item 1: the region inside the image is less than 14 pixels a side"


units = st.integers(1, 40)


@given(units, units, st.data())
@settings(max_examples=200, deadline=None)
def test_a_zoomed_region_has_no_more_pixels_than_its_image(columns, rows, data):
    width, height = 28 * columns, 28 * rows
    wide, high = data.draw(st.integers(14, width)), data.draw(st.integers(14, height))
    left, top = data.draw(st.integers(0, width - wide)), data.draw(st.integers(0, height - high))
    zoomed = enlarge(Image.new("RGB", (width, height)), (left, top, left + wide, top + high), 28)
    assert zoomed.width % 28 == zoomed.height % 28 == 0
    assert 28 * 28 <= zoomed.width * zoomed.height <= width * height


def test_marks():
    s = session()
    s.step(turn("Point", '{"index": 1, "point_2d": [50, 40], "label": "p"}'))
    s.step(turn("Text", '{"index": 2, "text_point_2d": [20, 60], "label": "hello"}'))
    assert len(s.images) == 3
    assert tuple(np.asarray(s.images[1])[40, 50]) != tuple(np.asarray(s.images[0])[40, 50])
    reply = s.step(turn("Point", '{"index": 1, "point_2d": [500, 40], "label": "p"}'))
    assert reply.error == "item 1: the place is outside the image (112 x 84)"


def test_select_frame_shows_the_image_as_it_is():
    s = session()
    s.step(turn("Object Mapper", BOX))
    reply = s.step(turn("Select Frame", '{"index": 1, "label": "again"}'))
    assert reply.drawn == 1 and s.images[2].tobytes() == s.images[1].tobytes()


def test_too_many_new_images_are_not_drawn():
    s = session(max_images=10)
    items = ", ".join([BOX] * 60)
    reply = s.step(turn("Zoom", items))
    assert reply.error.endswith("there is no room for another image") and len(s.images) == 1
    assert s.step(turn("Zoom", items)).stop_reason == "image_limit" and len(s.images) == 1


CIRCLE = """
from dataclasses import dataclass

from vilasr_jax.drawing.calls import Call
from vilasr_jax.drawing.tools import ItemError, Tool
from vilasr_jax.drawing.tools.base import read_index, read_label, read_numbers


@dataclass(frozen=True, slots=True)
class Circle(Call):
    tool = "circle"
    x: float
    y: float
    radius: float


class CircleTool(Tool):
    id, name, keys = "circle", "Circle Drawer", ("circle_2d",)
    purpose = "draws circles"
    example = \'{"index": 1, "circle_2d": [x, y, radius], "label": "name"}\'

    def read(self, item):
        return Circle(read_index(item), read_label(item), *read_numbers(item, "circle_2d", 3))

    def apply(self, call, overlay):
        if call.radius <= 0:
            raise ItemError("the circle has no area")
        overlay.put(call)

    def draw(self, canvas, call, newest):
        canvas.dot(call.x, call.y, call.radius, canvas.color(call.label))


TOOL = CircleTool()
"""


def test_one_file_adds_a_tool(tmp_path, monkeypatch):
    (tmp_path / "my_tools").mkdir()
    (tmp_path / "my_tools" / "circle.py").write_text(CIRCLE)
    (tmp_path / "my_tools" / "broken.py").write_text("TOOL = 3")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        held = DrawingSettings(tools=("object_mapper", "my_tools.circle"), style="maze")
        s = DrawingSession([Image.new("RGB", (112, 84), "white")], "Where?", settings=held)
        assert "- Circle Drawer: draws circles." in s.messages[0]["content"][0]["text"]
        item = '{"index": 1, "circle_2d": [50, 40, 10], "label": "ring"}'
        assert parse_actions(turn("Circle Drawer", item), s.tools).strict_format
        assert s.step(turn("Circle Drawer", item)).drawn == 1
        drawn = (np.asarray(s.images[1]) != 255).any(-1)
        assert drawn[40, 50] and abs(drawn.sum() - np.pi * 10**2) < 40
        assert s.step(turn("Circle Drawer", item.replace("50, 40", "60, 40"))).drawn == 1  # a correction
        assert not (np.asarray(s.images[2]) != 255).any(-1)[40, 41] and s.events[1]["corrected"] == 1
        for wrong, error in (("0]", "the circle has no area"), ("]", "circle_2d needs 3 numbers")):
            text = turn("Circle Drawer", item.replace("10]" if wrong == "0]" else ", 10]", wrong))
            assert s.step(text).error == f"item 1: {error}"
        assert "Circle" not in session().messages[0]["content"][0]["text"]
        for name, words in (("my_tools.broken", "must be a Tool"), ("my_tools.none", "ModuleNotFoundError")):
            with pytest.raises(ConfigError, match=words):
                get_tools([name])
    finally:
        TOOLS.pop("circle", None)
