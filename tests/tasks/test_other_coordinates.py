"""Records in pixels for models whose coordinates run from 0 to 1000, and the other way round."""

import dataclasses
import io
import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.tasks.stored_rows import recorded_conversation
from tests.tasks.test_rescale_recordings import BOX, LARGE, LINE, PATH, SMALL, png, record, turn
from vilasr_jax.drawing import DrawingSession, DrawingSettings, parse_actions
from vilasr_jax.drawing.prompts import PROMPTS, in_units, system_text
from vilasr_jax.drawing.style import STYLES
from vilasr_jax.drawing.tools import PUBLISHED, TOOLS, get_tools
from vilasr_jax.errors import ConfigError, DataError
from vilasr_jax.models import by_model_type
from vilasr_jax.tasks import get_family, replay
from vilasr_jax.tasks.rescale_recordings import fit_conversation, fit_question
from vilasr_jax.tasks.stored import StoredRow

PIXELS, RELATIVE = by_model_type("qwen2_5_vl"), by_model_type("qwen3_vl")
SIZE = (448, 224)  # sides that both families read as they are
LISTS = re.compile(r"\[(\d+(?:, \d+)+)\]")
RUN = "Coordinates run from 0 to 1000 over the width and over the height of an image, "


def fitted(*turns, size=SIZE, family=RELATIVE, units=None, most=LARGE, **said):
    messages = record(*turns, size=size, **said)
    images = sum(m["content"].count("<image>") for m in messages)
    return fit_conversation(messages, [size] * images, 784, most, units=units, family=family)


def boxes_of(text: str) -> list[list[float]]:
    return [[call.x1, call.y1, call.x2, call.y2] for call in parse_actions(text).calls]


def box_item(box: list[int]) -> str:
    return turn(BOX.replace("300, 200, 440, 330", str(box)[1:-1]) % 1)


SIDES = st.integers(3, 100).map(lambda count: 28 * count)


@settings(max_examples=1000, deadline=None)
@given(SIDES, SIDES, st.randoms(use_true_random=False))
def test_boxes_survive_pixels_to_the_model_to_pixels(width, height, rng):
    """Exactly where a unit of the model is smaller than a pixel; else within one unit of it."""
    x, y = rng.randrange(width - 20), rng.randrange(height - 20)
    box = [x, y, rng.randint(x + 10, width), rng.randint(y + 10, height)]
    there, read = fitted(box_item(box), size=(width, height), most=10**8)
    assert all(side % 32 == 0 for side in read[0])
    (written,) = boxes_of(there[2]["content"])
    assert all(0 <= value <= 1000 for value in written)
    back, _ = fitted(there[2]["content"], size=(width, height), family=PIXELS, units=1000, most=10**8)
    (found,) = boxes_of(back[2]["content"])
    for ours, theirs, side in zip(box, found, (width, height) * 2, strict=True):
        assert abs(theirs - ours) <= (side / 1000 if side > 1000 else 0)


@settings(max_examples=1000, deadline=None)
@given(SIDES, SIDES, st.randoms(use_true_random=False))
def test_boxes_survive_the_model_to_pixels_to_the_model(width, height, rng):
    """Exactly where a pixel is smaller than a unit of the model; else within one pixel."""
    box = [rng.randrange(450), rng.randrange(450), rng.randint(550, 1000), rng.randint(550, 1000)]
    there, read = fitted(box_item(box), size=(width, height), family=PIXELS, units=1000, most=10**8)
    assert read == [(width, height)] * 2
    back, _ = fitted(there[2]["content"], size=(width, height), most=10**8)
    (found,) = boxes_of(back[2]["content"])
    for ours, theirs, side in zip(box, found, (width, height) * 2, strict=True):
        assert abs(theirs - ours) <= (1000 / side if side < 1000 else 0)


def recorded(family, texts, size=SIZE, **how) -> StoredRow:
    """What a session of the family's model shows about some turns, as a stored conversation."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    units = family.coordinates
    session = DrawingSession(
        [Image.fromarray(pixels)], "Where is it?", settings=DrawingSettings(coordinates=units, **how)
    )
    messages = session.messages
    for text in texts:
        messages.append(
            {"role": "assistant", "content": [{"type": "text", "text": session.as_written(text)}]}
        )
        reply = session.step(messages[-1]["content"][0]["text"])
        assert not reply.error
        messages += [reply.message] if reply.message else []
    return recorded_conversation(messages, coordinates=units)


TURNS = (
    turn('{"index": 1, "bbox_2d": [301, 20, 441, 203], "label": "chair"}'),
    turn(
        '{"index": 2, "start_point_2d": [7, 11], "end_point_2d": [433, 207], "label": "1"}',
        tool="Path Tracer",
    ),
    turn('{"index": 3, "bbox_2d": [299, 22, 443, 201], "label": "chair"}', think="It is moved."),
    "<think> I see. </think> Action: Answer\n<answer> there </answer>",
)


@pytest.mark.parametrize("style", sorted(STYLES))
@pytest.mark.parametrize("old, new", [(PIXELS, RELATIVE), (RELATIVE, PIXELS)])
def test_a_trace_of_the_other_convention_has_the_same_drawings(old, new, style):
    row = recorded(old, TURNS, style=style)
    assert row.coordinates == old.coordinates
    messages = row.conversation(784, LARGE, family=new)
    shown = [part["image"] for m in messages for part in m["content"] if part["type"] == "image"]
    how = DrawingSettings(style=style, coordinates=new.coordinates)
    live = DrawingSession(shown[:1], "Where is it?", settings=how)
    opening = live.messages
    assert messages[:2] == opening and (RUN in opening[0]["content"][0]["text"]) == (new is RELATIVE)
    for message in messages:
        if message["role"] == "assistant":
            live.step(message["content"][0]["text"])
    assert live.stop_reason == "answer" and len(live.images) == len(shown) == 4
    for ours, theirs, bytes_ in zip(live.images, shown, row.images, strict=True):
        assert np.array_equal(ours, theirs) and np.array_equal(theirs, Image.open(io.BytesIO(bytes_)))
    assert (boxes_of(messages[2]["content"][0]["text"]) == [[301, 20, 441, 203]]) == (new is PIXELS)


@pytest.mark.parametrize("style", sorted(STYLES))
def test_every_tool_paints_the_same_pixels_in_both_units(style):
    rng, tools = random.Random(0), tuple(TOOLS)
    for _ in range(40):
        width, height = rng.randint(60, 990), rng.randint(60, 990)
        x1, y1 = rng.randrange(width - 30), rng.randrange(height - 30)
        x2, y2 = rng.randint(x1 + 20, width - 1), rng.randint(y1 + 20, height - 1)
        drawn = []
        for units in (None, 1000):
            how = DrawingSettings(style=style, tools=tools, coordinates=units)
            live = DrawingSession([Image.new("RGB", (width, height), "gray")], "?", settings=how)
            for name, places in (
                ("Object Mapper", f'"bbox_2d": [{x1}, {y1}, {x2}, {y2}]'),
                ("Path Tracer", f'"start_point_2d": [{x2}, {y1}], "end_point_2d": [{x1}, {y2}]'),
                ("Point", f'"point_2d": [{x2}, {y2}]'),
                ("Text", f'"text_point_2d": [{x1}, {y2}]'),
                ("Zoom", f'"bbox_2d": [{x1}, {y1}, {x2}, {y2}]'),
            ):
                item = f'{{"index": 1, {places}, "label": "cup"}}'
                reply = live.step(live.as_written(turn(item, tool=name)))
                assert reply.drawn == 1 and not reply.error
            drawn.append([(image.size, image.tobytes()) for image in live.images])
        assert drawn[0] == drawn[1], (width, height, x1, y1, x2, y2)


@pytest.mark.parametrize(
    "name, places",
    [
        ("Point", '"point_2d": [1000, 1000]'),
        ("Text", '"text_point_2d": [999, 1000]'),
        ("Path Tracer", '"start_point_2d": [500, 500], "end_point_2d": [1000, 500]'),
        ("Object Mapper", '"bbox_2d": [900, 900, 1000, 1000]'),
    ],
)
def test_the_far_end_of_a_side_is_inside_the_picture(name, places):
    how = DrawingSettings(tools=tuple(TOOLS), coordinates=1000)
    live = DrawingSession([Image.new("RGB", SIZE, "gray")], "?", settings=how)
    reply = live.step(turn(f'{{"index": 1, {places}, "label": "cup"}}', tool=name))
    assert reply.drawn == 1 and not reply.error
    (call,) = live.events[0]["calls"]
    far = [call.get(key, call.get(f"{key}2")) for key in "xy"]
    assert far[0] == SIZE[0] - (name != "Object Mapper")
    if name == "Path Tracer":  # its arrow head is there, as that of a line to the last pixel
        pixels = DrawingSession([Image.new("RGB", SIZE, "gray")], "?", settings=DrawingSettings())
        line = '"start_point_2d": [224, 112], "end_point_2d": [447, 112]'
        pixels.step(turn(f'{{"index": 1, {line}, "label": "cup"}}', tool=name))
        assert np.array_equal(live.images[1], pixels.images[1])


def test_a_record_in_the_models_own_coordinates_stays():
    row = recorded(RELATIVE, TURNS)
    texts = [m["content"] for m in row.messages]
    found = row.conversation(784, LARGE, family=RELATIVE)
    assert ["".join(p.get("text", "<image>") for p in m["content"]) for m in found] == texts
    smaller = row.conversation(784, 100 * 784, family=RELATIVE)
    assert smaller[2] == found[2] and smaller[1]["content"][0]["image"].size == (384, 192)


def test_coordinates_in_prose_are_those_of_their_items():
    (_, user, said, *_), _ = fitted(
        turn(PATH.replace("322", "202") % 1, think="From (14, 14), 40 pixels on.")
    )
    assert "From (31, 63), 40 pixels on." in said["content"]
    assert user["content"] == "<image>" + LINE.format(1, *SIZE) + "Where is it?"


@pytest.mark.parametrize(
    "think, says",
    [
        ("It is at pixels (300, 200).", "the words call coordinates pixels"),
        ("It is at (300, 200 px).", "the words call coordinates pixels"),
        ("Its left edge is at 300.", "the words hold"),
        ("It is at (301, 203).", "no item says of which image"),
    ],
)
def test_prose_that_is_not_certain_refuses_the_record(think, says):
    with pytest.raises(DataError, match=says):
        fitted(turn(BOX % 1, think=think), size=(448, 448))


def test_lengths_in_pixels_refuse_a_record_that_is_resized():
    with pytest.raises(DataError, match="a length in pixels: 40 pixels"):
        fitted(turn(PATH.replace("322", "202") % 1, think="It is 40 pixels on."), most=SMALL)


def test_coordinates_outside_of_the_units_are_refused():
    with pytest.raises(DataError, match="1440 is outside 0 to 1000"):
        fitted(turn(BOX.replace("440", "1440") % 1), units=1000)


@pytest.mark.parametrize(
    "said, family, units, says",
    [
        ("The box is in absolute pixel coordinates.", RELATIVE, None, "'absolute pixel' of coordinates"),
        ("Boxes are normalised to 0-1000.", PIXELS, 1000, "'normalised' of coordinates"),
        ("A box has two points, each from 0 to 1000.", PIXELS, 1000, "'0 to 1000' of coordinates"),
    ],
)
def test_a_system_message_of_another_unit_refuses_the_record(said, family, units, says):
    messages = record(turn(PATH.replace("322", "202") % 1), size=SIZE)
    messages[0]["content"] += f" {said}"
    with pytest.raises(DataError, match=says):
        fit_conversation(messages, [SIZE] * 2, 784, LARGE, units=units, family=family)


@pytest.mark.parametrize(
    "said, units",
    [
        ("Coordinates run from 0 to 1000 over the width and over the height of an image.", None),
        ("Bounding boxes use relative coordinates in [0, 1000].", None),
        ("Coordinates range from 0-999.", None),
        ("Coordinates are absolute pixels.", 1000),
    ],
)
@pytest.mark.parametrize("family", [PIXELS, RELATIVE])
def test_a_system_message_says_the_unit_of_the_import(said, units, family):
    """As with a forgotten --coordinates=1000: every box would be elsewhere."""
    messages = record(turn(PATH.replace("322", "202") % 1), size=SIZE)
    messages[0]["content"] += f" {said}"
    with pytest.raises(DataError, match=r"the system prompt says .* imported as .*see --coordinates"):
        fit_conversation(messages, [SIZE] * 2, 784, LARGE, units=units, family=family)


def test_other_words_get_the_sentence_on_coordinates_last():
    messages, _ = fitted(turn(PATH.replace("322", "202") % 1))
    theirs = "The image is 448 pixels wide and 224 pixels high."
    ours = f"\n{RUN}x to the right and y down from the top left corner."
    assert messages[0]["content"] == theirs + ours
    words = dataclasses.replace(
        PROMPTS["vilasr_jax"], name="own", system="The image is {width} pixels wide and {height} pixels high."
    )
    tools = get_tools(PUBLISHED)
    assert system_text(words, tools, [SIZE], False, 1000) == theirs + ours
    assert system_text(words, tools, [SIZE], False) == theirs == in_units(theirs + ours, None)
    (first, *_), _ = fitted(turn(PATH.replace("322", "202") % 1), family=PIXELS, units=1000)
    assert first["content"] == theirs


def test_a_prompt_of_another_unit_is_refused_at_once():
    words = dataclasses.replace(
        PROMPTS["vilasr_jax"], name="own", source="own.json", system="Boxes are in pixel coordinates."
    )
    DrawingSession([], "", settings=DrawingSettings(prompt=words))
    with pytest.raises(ConfigError, match=r"config\.drawing\.prompt: own\.json: .*'in pixel' of coordinates"):
        DrawingSession([], "", settings=DrawingSettings(prompt=words, coordinates=1000))


CHOICES = ("Which is the chair's bounding box?", "A. [112, 56, 224, 168]", "B. [0, 0, 112, 56]", "B")


def test_questions_have_the_models_coordinates():
    images = (png(SIZE),)
    row = StoredRow("own-3", CHOICES[0], "B", "multiple choice", CHOICES[1:3], images, "vqa")
    read = row.row(784, LARGE, family=RELATIVE)
    assert read.options == ("A. [250, 250, 500, 750]", "B. [0, 0, 250, 250]") and read.answer == "B"
    assert read.images[0].size == SIZE
    marked = dataclasses.replace(row, options=read.options, coordinates=1000)
    assert StoredRow.from_bytes(marked.to_bytes()).row(784, LARGE).options == row.options
    assert marked.row(784, LARGE, family=RELATIVE).options == read.options
    assert b"coordinates" not in row.to_bytes()  # rows in pixels are stored as before


@pytest.mark.parametrize(
    "texts, says",
    [
        (("Which is it?", "A. (300, 200)", "A"), "may be coordinates"),
        (("In pixels, which box is it?", "A. [300, 20, 440, 100]", "A"), "calls coordinates pixels"),
        (("How many pixels wide is it?", "A. 140", "B. 150", "A"), "may be in pixels"),
    ],
)
def test_questions_that_are_not_certain_are_refused(texts, says):
    with pytest.raises(DataError, match=says):
        fit_question(texts, [SIZE], 784, LARGE, family=RELATIVE)


def test_questions_that_say_their_own_unit_stay():
    texts = (CHOICES[0] + " Boxes are normalized to 0-1000.", *CHOICES[1:])
    assert fit_question(texts, [SIZE], 784, LARGE, family=RELATIVE) == (texts, [SIZE])


def test_lengths_in_pixels_refuse_a_question_that_is_resized():
    texts = ("How far is the cup, in pixels?", "57")
    assert fit_question(texts, [SIZE], 784, LARGE, units=1000, family=RELATIVE)[0] == texts
    with pytest.raises(DataError, match="speaks of pixels"):
        fit_question(texts, [SIZE], 784, SMALL, units=1000, family=RELATIVE)


@pytest.mark.parametrize("name", ["maze", "static", "video", "multiview", "tests.tasks.count_dots"])
def test_text_traces_are_written_in_the_models_coordinates(name):
    """The control without drawing: every place that it writes is converted, and nothing else."""
    family, numbers = get_family(name), 0
    how = DrawingSettings(prompt="short", draw=False, coordinates=1000)
    for seed in range(40):
        row = family.row(family.spec(None, "train"), seed)
        trace = family.text_trace(row)
        text = replay(trace, how)[-1]["content"][0]["text"]
        pixels = [list(map(int, said.split(", "))) for said in LISTS.findall(trace.turns[0])]
        written = [tuple(map(int, said.split(", "))) for said in LISTS.findall(text)]
        assert written == [how.written(places, row.images[0].size) for places in pixels]
        assert LISTS.sub("", text) == LISTS.sub("", trace.turns[0])
        numbers += len(written)
    assert numbers > 40
