"""Actions as function calls: the prompt, what is parsed, drawn and given back, and traces in this form."""

import dataclasses
import json
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests import tiny
from vilasr_jax.config import DrawingSection, JobConfig, ModelSection, SoftDrawingSection, check_section
from vilasr_jax.conversation_settings import drawing_settings
from vilasr_jax.drawing import DrawingSession, DrawingSettings, get_format, get_tools, parse_actions
from vilasr_jax.drawing.actions import MAX_ITEMS
from vilasr_jax.drawing.formats import FORMATS
from vilasr_jax.drawing.prompts import PROMPTS, PromptSet
from vilasr_jax.errors import ConfigError
from vilasr_jax.evaluation.scorers import score_free_form
from vilasr_jax.models import by_model_type
from vilasr_jax.processing import encode_turn
from vilasr_jax.rewards import RewardSettings, score
from vilasr_jax.tasks import get_family, replay

FORM = get_format("tool_call")
ARGUMENTS = '{"bbox_2d": [250, 0, 750, 500], "label": "cup", "img_idx": 0}'
ZOOM = f'{{"name": "image_zoom_in_tool", "arguments": {ARGUMENTS}}}'
BOX = ZOOM.replace("image_zoom_in_tool", "object_mapper")
LINE = (
    '{"name": "path_tracer", "arguments": {"start_point_2d": [1100, 20], "end_point_2d": [1300, 20], '
    '"label": "1", "img_idx": 0}}'
)
TOOLS = get_tools(("zoom", "object_mapper", "path_tracer"))
SETTINGS = DrawingSettings(
    tools=("zoom", "object_mapper", "path_tracer"), coordinates=1000, actions="tool_call", image_unit=32
)


def call(*calls: str, think: str = "") -> str:
    return think + "\n".join(f"<tool_call>\n{one}\n</tool_call>" for one in calls)


def session(count: int = 1, **changes) -> DrawingSession:
    images = [Image.new("RGB", (256, 128), color) for color in ("red", "blue", "green")[:count]]
    return DrawingSession(images, "Where is the cup?", settings=dataclasses.replace(SETTINGS, **changes))


def texts(message) -> list[str]:
    return [part.get("text", "<image>") for part in message["content"]]


def test_the_system_prompt_holds_signatures_and_the_unit():
    (said,) = texts(session().messages[0])
    task, _, block = said.partition("\n\n# Tools\n\n")
    assert "Coordinates run from 0 to 1000" in task and task.endswith("between <answer> and </answer>.")
    listed = block.partition("<tools>\n")[2].partition("\n</tools>")[0].split("\n")
    functions = [json.loads(line)["function"] for line in listed]
    assert [f["name"] for f in functions] == ["image_zoom_in_tool", "object_mapper", "path_tracer"]
    zoom = functions[0]["parameters"]
    assert zoom["required"] == ["bbox_2d", "label", "img_idx"]
    box = zoom["properties"]["bbox_2d"]
    assert (box["minItems"], box["maxItems"], box["description"]) == (4, 4, "x1, y1, x2, y2")
    assert block.endswith('{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>')
    (words,) = texts(session(draw=False).messages[0])
    assert "# Tools" not in words and "Coordinates run from 0 to 1000" in words


def test_a_zoom_gives_the_region_back_as_the_next_image():
    one = session()
    assert texts(one.messages[1])[1].startswith("Image 1 has img_idx 0 (width: 256, height: 128).\n")
    reply = one.step(call(ZOOM, think="<think>It is small.</think>\n"))
    before, image, after = texts(reply.message)
    assert (before, image, reply.drawn, reply.error) == ("<tool_response>\n", "<image>", 1, None)
    assert after.startswith("Image 2 has img_idx 1 (") and "\n</tool_response>\n" in after
    event = one.events[0]
    assert event["action"] == "Zoom" and event["strict_format"] and event["bases"] == [1]
    noted = event["calls"][0]
    assert (noted["x1"], noted["y1"], noted["x2"], noted["y2"]) == (64, 0, 192, 64)
    end = one.step("<think>There.</think>\nOn the table.\n<answer> table </answer>")
    assert end.done and one.answer == "table" and one.events[1]["strict_format"]


def test_a_call_names_images_from_0_and_several_are_carried_out():
    one = session(3)
    box = BOX.replace(": 0}}", ": %d}}")
    reply = one.step(call(box % 2, box % 0))
    assert [event["index"] for event in one.events[0]["calls"]] == [3, 1] and reply.drawn == 2
    assert one.step(call(box % 7)).error == "item 1: there is no img_idx 7, only 0 to 4"


def test_a_call_about_several_images_has_to_name_one():
    """By default it was drawn on the first, also where the model wrote "index" for another."""
    nameless = ZOOM.replace(', "img_idx": 0', "")
    other = ZOOM.replace('"img_idx": 0', '"index": 2')
    for text in (nameless, other, ZOOM.replace(": 0}}", ": null}}")):
        one = session(2)
        reply = one.step(call(text))
        assert reply.error == "item 1: img_idx is missing" and not reply.drawn and not reply.done
        assert "img_idx is missing" in "".join(texts(reply.message))
    assert session().step(call(nameless)).drawn == 1  # there is one image
    assert session().step(call(other)).error == "item 1: img_idx is missing"


QUESTION = "In which image is a cup, image 1 or image 2?"


def two_images(actions: str, question: str = QUESTION, **words) -> DrawingSession:
    how = dataclasses.replace(SETTINGS, actions=actions)
    return DrawingSession(session(2).images, question, question_type="free-form", settings=how, **words)


def test_words_number_images_alike_and_calls_count_from_0():
    words = {
        "options": ["A. all of image 1", "B. image 3", "C. pictures 1-2"],
        "captions": ["Image 1:", "<image 2>"],
    }
    prompts = PromptSet(
        **{**dataclasses.asdict(PROMPTS["vilasr_jax"]), "before": "Numbered from 1 to {count}."}
    )
    for actions in ("tool_call", "published"):
        how = DrawingSettings(actions=actions, prompt=prompts)
        one = DrawingSession(session(2).images, QUESTION, settings=how, **words)
        seen = "".join(texts(one.messages[1]))
        for said in (QUESTION, *words["options"], "Image 1:\n", "<image 2>", "from 1 to 2."):
            assert said in seen
    one = two_images("tool_call")
    (system,), user = texts(one.messages[0]), texts(one.messages[1])
    assert (
        "Images are numbered from 1; img_idx, by which a call names an image, is its number minus 1."
        in system
    )
    assert [line.partition(" (")[0] for line in user[1::2]] == [
        "Image 1 has img_idx 0",
        "Image 2 has img_idx 1",
    ]
    item = '```json\n[{"index": 2, "bbox_2d": [10, 10, 90, 90], "label": "cup"}]\n```'
    said = one.as_written(f"<think> In image 2, not image 1. </think> Action: Object Mapper\n{item}")
    assert "In image 2, not image 1." in said and '"img_idx": 1' in said
    reply = one.step(said)
    assert one.events[0]["calls"][0]["index"] == 2
    assert texts(reply.message)[-1].startswith("Image 3 has img_idx 2 (")


@pytest.mark.parametrize("actions", ["tool_call", "published"])
def test_an_answer_that_names_an_image_is_its_label(actions):
    """Targets said "image 1" in their thoughts and "image 2" in their answers, of the same image."""
    one = two_images(actions)
    said = one.as_written(
        "<think> The cup is in image 2. </think> Action: Answer\n<answer> image 2 </answer>"
    )
    assert "in image 2. </think>" in said and said.endswith("<answer> image 2 </answer>")
    assert one.step(said).done and one.answer == "image 2"
    settings = RewardSettings(tools=SETTINGS.tools, actions=actions)
    for label, right in (("image 2", 1), ("image 1", 0)):
        got = score([said], answer=label, question_type="free-form", settings=settings)
        assert (got["accuracy"], got["format"]) == (right, 1)
        assert score_free_form(one.answer, label) == right


def test_questions_that_count_from_0_stay():
    question = "Compare image 0 and image 1."
    assert question in texts(two_images("tool_call", question).messages[1])[-1]


@pytest.mark.parametrize("name", ["static", "video", "multiview"])
def test_requests_of_perception_name_the_image_drawn_on(name):
    family = get_family(name)
    how = DrawingSettings(prompt="short", max_turns=40, max_images=64, actions="tool_call")
    checked = 0
    for seed in range(4):
        messages = family.perception(family.spec(None, "train"), seed, how)
        for request, answer in zip(messages[1::2], messages[2::2], strict=True):
            (number,) = re.findall(r" in image (\d+)\.", texts(request)[-1])
            drawn = {int(at) for at in re.findall(r'"img_idx": (\d+)', texts(answer)[0])}
            assert drawn <= {int(number) - 1}
            checked += len(drawn)
    assert checked > 3


@pytest.mark.parametrize("actions", ["tool_call", "published"])
def test_a_counting_question_names_the_frame_of_its_line(actions):
    family, how = get_family("video"), DrawingSettings(prompt="short", actions=actions)
    rows = (family.row(family.spec(None, "train"), seed) for seed in range(60))
    row = next(row for row in rows if row.meta["kind"] == "count")
    messages = replay(family.expert_trace(row, random.Random(0)), how)
    (frame,) = re.findall(r"How many are in frame (\d+)\?", "".join(texts(messages[1])))
    named = {int(n) for n in re.findall(r'"(?:img_idx|index)": (\d+)', texts(messages[2])[0])}
    assert named == {int(frame) - (actions == "tool_call")}


@pytest.mark.parametrize(
    "text, error",
    [
        ("<tool_call>", "the json can't be read"),
        (call("[1, 2"), "the json can't be read"),
        (call("7"), "a call must be a json object"),
        (
            call('{"name": "crop", "arguments": {}}'),
            "item 1: name must be that of a function: image_zoom_in_tool,",
        ),
        (call('{"name": "object_mapper"}'), "item 1: arguments must be a json object"),
        (call(ZOOM.replace("0}}", "-1}}")), "item 1: img_idx must be the number of an image"),
        (call(ZOOM.replace('"label"', '"name"')), "item 1: label is missing"),
        (call(ZOOM.replace("750", "251")), "item 1: the region inside the image is less than"),
        (call(ZOOM.replace("250, 0, 750, 500", "1100, 0, 1300, 500")), "item 1: the region inside the image"),
        (
            call(BOX.replace("250, 0, 750", "1100, 0, 1300")),
            "item 1: the box is outside the image (0 to 1000)",
        ),
        (call(LINE), "item 1: the line is outside the image (0 to 1000)"),
    ],
)
def test_an_error_comes_back_as_what_the_tool_says(text, error):
    one = session()
    reply = one.step(text)
    assert reply.error.startswith(error) and not reply.drawn
    said = "".join(texts(reply.message))
    assert said.startswith("<tool_response>\nThe last action could not be carried out in full: " + error[:20])
    assert "\n</tool_response>" in said


@pytest.mark.parametrize(
    "box, error",
    [
        ("999, 999, 1000, 1000", "the box is less than a pixel wide or high"),
        ("1000, 1000, 1000, 1000", "the box is less than a pixel wide or high"),
        ("0, 1000, 1000, 1000", "the box is less than a pixel wide or high"),
        ("0, 500, 1, 900", "the box is less than a pixel wide or high"),
        ("1003, 0, 1003, 900", "the box is outside the image (0 to 1000)"),
        ("1000, 0, 1100, 900", "the box is outside the image (0 to 1000)"),
        ("990, 990, 1000, 1000", None),
    ],
)
@pytest.mark.parametrize("actions", ["tool_call", "published"])
def test_a_box_below_a_pixel_is_not_called_outside(box, error, actions):
    one = session(actions=actions)
    item = f'[{{"index": 1, "bbox_2d": [{box}], "label": "a"}}]'
    published = f"<think> a </think> Action: Object Mapper\n```json\n{item}\n```"
    text = call(BOX.replace("250, 0, 750, 500", box)) if actions == "tool_call" else published
    assert one.step(text).error == (error and f"item 1: {error}")


def test_a_line_below_a_pixel_is_not_called_a_point():
    one = session()
    assert one.step(call(LINE.replace("1100", "500").replace("1300", "501"))).error == (
        "item 1: the line is less than a pixel long"
    )


@pytest.mark.parametrize("side, wide, high", [(256, 63, 125), (1024, 16, 32)])
def test_the_least_region_is_in_the_unit_of_the_model(side, wide, high):
    """It was said in pixels to a model that counts from 0 to 1000. What is said is enough."""
    image = Image.new("RGB", (side, side // 2), "white")
    small = ZOOM.replace("250, 0, 750, 500", f"300, 100, {300 + wide // 2}, 900")
    enough = ZOOM.replace("250, 0, 750, 500", f"301, 111, {301 + wide}, {111 + high}")
    one = DrawingSession([image], "?", settings=SETTINGS)
    assert one.step(call(small)).error == (
        f"item 1: the region inside the image is less than {wide} wide or {high} high"
    )
    assert one.step(call(enough)).drawn == 1


@pytest.mark.parametrize(
    "old, new",
    [
        ("250, 0, 750, 500", "250, 0, 750"),
        ("250, 0, 750, 500", "250, 0, 750, NaN"),
        ("250, 0, 750, 500", "250, 0, 750, 1e308"),
        (": 0}}", ": -1}}"),
        ('"cup"', "null"),
    ],
)
def test_a_call_that_cannot_be_read_is_not_in_form(old, new):
    assert FORM.parse(call(BOX), TOOLS).strict_format
    turn = FORM.parse(call(BOX.replace(old, new)), TOOLS)
    assert turn.errors and not turn.strict_format
    item = '{"index": 1, "bbox_2d": [250, 0, 750, 500], "label": "cup"}'
    text = "<think> a </think> Action: Object Mapper\n```json\n[%s]\n```"
    assert parse_actions(text % item).strict_format
    broken = item.replace(old if old != ": 0}}" else "1,", new if old != ": 0}}" else "-1,")
    turn = parse_actions(text % broken)
    assert turn.errors and not turn.strict_format


def test_good_calls_of_a_turn_with_bad_ones_are_carried_out():
    one = session()
    crop = '{"name": "crop", "arguments": {}}'
    reply = one.step(call(ZOOM, crop, "{", BOX))
    assert reply.drawn == 2 and [noted["tool"] for noted in one.events[0]["calls"]] == [
        "zoom",
        "object_mapper",
    ]
    assert reply.error == (
        "the json can't be read; item 2: name must be that of a function: image_zoom_in_tool, object_mapper, "
        "path_tracer"
    )
    said = texts(reply.message)
    assert said.count("<image>") == 2 and "The last action could not be carried out in full" in said[-1]
    assert one.step("<answer> B </answer>").done


def test_more_calls_than_a_turn_may_have():
    one = session()
    marks = [BOX.replace('"cup"', f'"cup {number}"') for number in range(MAX_ITEMS + 9)]
    reply = one.step(call(*marks))
    assert len(one.events[0]["calls"]) == MAX_ITEMS and reply.drawn == 1
    assert reply.error == f"only {MAX_ITEMS} calls a turn are carried out"


@pytest.mark.parametrize(
    "text",
    [
        ZOOM.join(("<tool_call>", "")),
        ZOOM.join(("I look. <tool_call> ", "</tool_call> and wait")),
        call(ZOOM.replace(', "img_idx": 0', "")),
        call(ZOOM.replace(": 0}}", ': "0"}}').replace('"cup"', "'cup'")),
        call(f"[{ZOOM}]"),
        call(json.dumps({**json.loads(ZOOM), "arguments": ARGUMENTS})),
    ],
)
def test_calls_are_read_that_are_not_quite_in_form(text):
    turn = FORM.parse(text, TOOLS)
    (region,) = turn.calls
    assert (region.index, region.x1, region.x2, region.label) == (1, 250, 750, "cup")
    assert not turn.errors and not turn.strict_format


def test_words_alone_are_no_action():
    one = session()
    assert one.step("I am not certain.").stop_reason == "no_action"
    published = (
        '</think> Action: Zoom\n```json\n[{"index": 1, "bbox_2d": [0, 0, 500, 500], "label": "a"}]\n```'
    )
    assert session().step(published).stop_reason == "no_action"


PIECES = [
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "<|im_end|>",
    "<answer>",
    "</answer>",
    "<think>",
    "</think>",
    ZOOM,
    '{"name": ',
    '"arguments": ',
    '{"img_idx": 1e99, "bbox_2d": [[NaN]], "label": null}',
    "[" * 40,
    "}",
]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=12).map("".join))
def test_nothing_that_a_model_writes_raises(text):
    one = session()
    reply = one.step(text)
    assert (reply.message is None) == reply.done
    if reply.message:
        encoded = encode_turn(
            tiny.tokenizer(), {**reply.message, "content": without_images(reply)}, closed=True
        )
        special = tiny.tokenizer().special
        assert [int(i) for i in encoded.ids if i in set(special_ids(special))] == [
            special.im_start,
            special.im_end,
            special.im_start,
        ]


def without_images(reply):
    return [part for part in reply.message["content"] if part["type"] == "text"]


def special_ids(special) -> list[int]:
    return [special.im_start, special.im_end, special.endoftext, special.vision_start, special.image_pad]


@pytest.mark.parametrize("name", ["maze", "static", "video", "multiview", "tests.tasks.count_dots"])
def test_expert_traces_train_this_form_with_the_same_drawings(name):
    family = get_family(name)
    how = DrawingSettings(prompt="short", max_turns=40, max_images=64)
    for seed in range(6):
        row = family.row(family.spec(None, "train"), seed)
        trace = family.expert_trace(row, random.Random(seed), slip=seed % 2 == 0)
        published = replay(trace, how)
        called = replay(trace, dataclasses.replace(how, actions="tool_call"))
        ours, theirs = (
            [p["image"] for m in some for p in m["content"] if "image" in p] for some in (called, published)
        )
        assert [a.tobytes() for a in ours] == [b.tobytes() for b in theirs] and len(ours) > len(row.images)
        turns = [texts(m)[0] for m in called if m["role"] == "assistant"]
        assert all(FORM.parse(text, get_tools(how.tools)).strict_format for text in turns)
        assert "<tool_call>" in turns[0] and f"<answer> {row.answer} </answer>" in turns[-1]


def test_rewards_read_the_form_of_the_job():
    said = [call(ZOOM), "<answer> B </answer>"]
    settings = RewardSettings(tools=SETTINGS.tools, actions="tool_call")
    assert score(said, answer="B", settings=settings)["format"] == 1
    assert score(said, answer="B", settings=dataclasses.replace(settings, actions="published"))["format"] == 0
    assert score(said[1:], answer="B", settings=settings)["total"] == 1


def test_a_config_selects_the_form_where_the_weights_know_it():
    job = JobConfig(drawing=DrawingSection(actions="tool_call"), model=ModelSection(preset="qwen3vl_tiny"))
    prompts = PROMPTS["vilasr_jax"]
    assert drawing_settings(job, "vqa", prompts, by_model_type("qwen3_vl")).actions == "tool_call"
    with pytest.raises(ConfigError, match=r"config\.drawing\.actions='tool_call': .* qwen2_5_vl"):
        drawing_settings(job, "vqa", prompts, by_model_type("qwen2_5_vl"))
    assert JobConfig().drawing.actions == DrawingSettings().actions == "published" in FORMATS
    with pytest.raises(ConfigError, match=r"drawing\.actions='calls'"):
        check_section(JobConfig(drawing=DrawingSection(actions="calls")))
    soft = JobConfig(drawing=DrawingSection(actions="tool_call"), soft_drawing=SoftDrawingSection(weight=0.5))
    with pytest.raises(ConfigError, match=r"soft_drawing\.weight=0\.5 reads drawings of the published"):
        check_section(soft)
