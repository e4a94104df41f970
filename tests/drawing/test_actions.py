"""The action grammar: the published form, what models really write, and hostile text."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vilasr_jax.drawing import PUBLISHED, Box, Line, get_tools, parse_actions
from vilasr_jax.drawing.actions import MAX_ERRORS, MAX_ITEMS

BOX = '{"index": 1, "bbox_2d": [10, 20, 30, 40], "label": "chair"}'
LINE = '{"index": 2, "start_point_2d": [14, 42], "end_point_2d": [42, 70], "label": "1"}'
BOX_CALL = Box(1, "chair", 10, 20, 30, 40)
LINE_CALL = Line(2, "1", 14, 42, 42, 70)


def turn(items: str, action: str = "Object Mapper", fence: str = "```json\n{}\n```") -> str:
    return f"<think> look </think> Action: {action}\n" + fence.replace("{}", items)


def test_published_form():
    parsed = parse_actions(turn(f"[{BOX}, {LINE}]"))
    assert parsed.think == "look"
    assert parsed.action == "Object Mapper"
    assert parsed.calls == (BOX_CALL, LINE_CALL)
    assert parsed.answer is None and parsed.errors == () and parsed.strict_format


def test_answer_turn():
    parsed = parse_actions("<think> done </think> Action: Answer\n<answer> B </answer>")
    assert (parsed.action, parsed.answer, parsed.calls) == ("Answer", "B", ())
    assert parsed.strict_format and not parsed.errors


@pytest.mark.parametrize(
    "items",
    [
        BOX,  # a single object
        f"[{BOX},]",  # trailing comma
        "[{'index': 1, 'bbox_2d': (10, 20, 30, 40), 'label': 'chair'}]",  # Python literals
        '[{"index": 1, "bbox_2d": [10.0, 20.0, 30.0, 4e1], "label": "chair"}]',
        '[{"index": 1, "bbox_2d": [30, 40, 10, 20], "label": "chair"}]',  # swapped corners
        '[{"index": "1", "bbox_2d": ["10", "20", "30", "40"], "label": "chair"}]',
        '[{"index": 1.0, "bbox_2d": "10, 20, 30, 40", "label": "chair"}]',
        '[{"index": 1, "bbox_2d": [[10, 20], [30, 40]], "label": "chair"}]',
        f"[[{BOX}]]",
        f"  {BOX} and some words after",
    ],
)
@pytest.mark.parametrize(
    "fence", ["```json\n{}\n```", "```\n{}\n```", "```python\n{}```", "```json\n{}", "{}"]
)
def test_tolerated_forms(items, fence):
    parsed = parse_actions(turn(items, fence=fence))
    assert parsed.calls == (BOX_CALL,)


def test_several_blocks():
    parsed = parse_actions(turn(f"[{BOX}]") + "\nand\n" + f"```json\n[{LINE}]\n```")
    assert parsed.calls == (BOX_CALL, LINE_CALL) and parsed.strict_format


def test_missing_think_and_decorated_action():
    parsed = parse_actions(f"**Action:** `path_tracer`\n```json\n[{LINE}]\n```")
    assert parsed.action == "Path Tracer" and parsed.calls == (LINE_CALL,) and not parsed.strict_format


def test_json_in_the_think_is_not_an_action():
    parsed = parse_actions(f"<think> ```json\n[{BOX}]\n``` <answer> A </answer> </think> Action: Answer\n")
    assert parsed.calls == () and parsed.answer is None and parsed.errors


def test_complete_items_of_cut_json_are_read():
    parsed = parse_actions(turn(f'[{BOX}, {{"index": 1, "bbox_2d": [1, 2', fence="```json\n{}"))
    assert parsed.calls == (BOX_CALL,) and parsed.errors == ("the json can't be read after item 1",)


@pytest.mark.parametrize(
    ("item", "error"),
    [
        ('{"index": 1, "bbox_2d": [1, 2, 3], "label": "a"}', "item 2: bbox_2d needs 4 numbers"),
        ('{"index": 1, "bbox_2d": null, "label": "a"}', "item 2: bbox_2d needs 4 numbers"),
        ('{"index": 1, "bbox_2d": [1, 2, 3, true], "label": "a"}', "not a number"),
        ('{"index": 1, "bbox_2d": [1, 2, 3, NaN], "label": "a"}', "out of range"),
        ('{"index": 1, "bbox_2d": [1, 2, 3, 1e308], "label": "a"}', "out of range"),
        ('{"index": 1, "bbox_2d": [1, 2, 3, -Infinity], "label": "a"}', "out of range"),
        ('{"index": 1, "bbox_2d": [1, 2, 3, ' + "9" * 5000 + '], "label": "a"}', "out of range"),
        ('{"bbox_2d": [1, 2, 3, 4], "label": "a"}', "item 2: index is missing"),
        ('{"index": 0, "bbox_2d": [1, 2, 3, 4], "label": "a"}', "item 2: index must be"),
        ('{"index": 1, "bbox_2d": [1, 2, 3, 4]}', "item 2: label is missing"),
        ('{"index": 1, "start_point_2d": [1, 2], "label": "a"}', "item 2: end_point_2d needs 2 numbers"),
        ("7", "item 2: must be a json object"),
    ],
)
def test_errors_name_the_item(item, error):
    parsed = parse_actions(turn(f"[{BOX}, {item}]"))
    assert parsed.calls == (BOX_CALL,)
    assert len(parsed.errors) == 1 and error in parsed.errors[0] and len(parsed.errors[0]) < 80


def test_bare_numbers_as_json():
    """Fault 8 of the published code: a list of numbers ended the job."""
    parsed = parse_actions(turn("[1, 2]"))
    assert parsed.calls == () and not parsed.strict_format and "must be a json object" in parsed.errors[0]


@pytest.mark.parametrize(
    "text",
    [
        f"think Action: Object Mapper\n```json\n[{BOX}]\n```",
        turn(f"[{BOX}]", fence="```\n{}\n```"),
        turn(f"[{BOX}]", fence="```json\n{}"),
        turn(f"[{BOX},]"),
        turn(BOX),
        turn("[]"),
        turn("[1, 2]"),
        turn(f"[{BOX}]", action="Magic Wand"),
        turn(f"[{BOX}]") + "<answer> A </answer>",
        turn('[{"index": 1, "bbox_2d": [1, 2, NaN, 4], "label": "a"}]'),
        "<think> a </think> <think> b </think> Action: Answer\n<answer> A </answer>",
        "<think> a </think> Action: Answer\nA",
        "<think> a </think> Action: Answer\n<answer> A </answer> or <answer> B </answer>",
        "<think> a </think> Action: Answer\n<answer> A",
    ],
)
def test_not_strict(text):
    assert not parse_actions(text).strict_format


def test_no_tools_leaves_only_the_answer():
    parsed = parse_actions(turn(f"[{BOX}]"), ())
    assert parsed.calls == () and parsed.action is None and not parsed.strict_format


_PIECES = st.sampled_from(
    [
        *"[]{}()'\",:1-\\é\n\x00\u202e\ud800",
        *["1e308", "NaN", "null", '"index"', '"bbox_2d": [', '"label"', BOX, LINE],
        *["<think>", "</think>", "Action:", " Object Mapper", "Path Tracer", "Answer", "```json\n", "```"],
        *["<answer>", "</answer>", "<|im_end|>", "<|image_pad|>"],
    ]
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.one_of(st.text(max_size=300), st.lists(_PIECES, max_size=40).map("".join)))
def test_never_raises(text):
    parsed = parse_actions(text)
    assert len(parsed.errors) <= MAX_ERRORS
    assert all(len(error) < 120 and error.isprintable() for error in parsed.errors)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_mutated_turns_never_raise(data):
    text = turn(f"[{BOX}, {LINE}]")
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(text)))
        to = data.draw(st.integers(at, min(len(text), at + 12)))
        text = text[:at] + data.draw(st.one_of(_PIECES, st.text(max_size=4))) + text[to:]
    parse_actions(text)


_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                key: _VALUES for key in ("index", "bbox_2d", "start_point_2d", "end_point_2d", "label")
            },
        ),
        max_size=4,
    )
)
def test_any_json_values(items):
    parsed = parse_actions(turn(json.dumps(items)))
    assert len(parsed.calls) + len(parsed.errors) >= min(1, len(items))


HOSTILE = {
    "long label": turn('[{"index": 1, "bbox_2d": [1, 2, 3, 4], "label": "' + "x" * 1_000_000 + '"}]'),
    "many items": turn("[" + ", ".join([BOX] * 10_000) + "]"),
    "deep lists": turn("[" * 100_000),
    "deep dicts": turn('{"a":' * 30_000),
    "deep pythons": turn("[{'a': (" * 30_000),
    "many fences": "```json\n[{" * 20_000,
    "many actions": "Action: " * 20_000,
    "spaces": "<think></think>Action:" + " " * 500_000 + "Answer",
    "open quotes": turn('["' * 50_000),
    "backslashes": turn('["' + "\\" * 99_000),
    "commas": turn("[" + "," * 99_000),
    "open brackets": "[ {" * 33_000,
    "think tags": "<think>" * 20_000 + "</think>" * 20_000,
    "long words": turn("a" * 99_000),
    "long number": turn("[" + "1" * 99_000),
    "escapes": turn('["' + "\\u0041" * 16_000 + '"'),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_bounded_time(name):
    times = []
    for _ in range(3):
        start = time.process_time()
        parsed = parse_actions(HOSTILE[name])
        times.append(time.process_time() - start)
    assert min(times) < 0.1
    assert len(parsed.calls) <= MAX_ITEMS
    assert all(len(call.label) <= 64 for call in parsed.calls)


def test_labels_are_cleaned():
    items = json.dumps([{"index": 1, "bbox_2d": [1, 2, 3, 4], "label": "a\u202eb\x00c\n<|im_end|>"}])
    assert parse_actions(turn(items)).calls[0].label == "abc<|im_end|>"


def test_tools_argument_is_the_published_two_by_default():
    assert [tool.name for tool in get_tools(PUBLISHED)] == ["Object Mapper", "Path Tracer"]
