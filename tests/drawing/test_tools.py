"""The tools that are off by default, and that prompt and parser follow the enabled ones."""

import pickle

import numpy as np
from PIL import Image

from vilasr_jax.drawing import PUBLISHED, TOOLS, DrawingSession, DrawingSettings, get_tools, parse_actions

ALL = tuple(TOOLS)


def turn(action: str, item: str) -> str:
    return f"<think> so </think> Action: {action}\n```json\n[{item}]\n```"


def session(**changes) -> DrawingSession:
    image = Image.effect_noise((112, 84), 40).convert("RGB")
    settings = DrawingSettings(tools=ALL, style="clear", **changes)
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


def test_too_many_new_images_are_not_made():
    s = session(max_images=10)
    items = ", ".join([BOX] * 60)
    assert s.step(turn("Zoom", items)).stop_reason == "image_limit" and len(s.images) == 1
