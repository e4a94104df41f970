"""The form of function calls that vision-language models are published with.

    <tool_call>
    {"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [x1, y1, x2, y2], "label": "cup", "img_idx": 0}}
    </tool_call>

Functions are the enabled tools; what they give back is between `<tool_response>` tags. Words number images
from 1, as the published chat template does, and `img_idx` is one less; the line after each image says both.
The conversation ends with `<answer> ... </answer>`.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from vilasr_jax.drawing.actions import (
    MAX_ERRORS,
    MAX_ITEMS,
    MAX_TEXT,
    ParsedTurn,
    find_action,
    find_items,
    read_json,
    split_answer,
    split_think,
    tool_of,
)
from vilasr_jax.drawing.calls import Call
from vilasr_jax.drawing.formats.base import ActionFormat
from vilasr_jax.drawing.lenient_json import read_value
from vilasr_jax.drawing.prompts import PROMPTS, unit_text
from vilasr_jax.drawing.tools import ItemError, Tool
from vilasr_jax.drawing.tools.base import MAX_COORDINATE, read_index
from vilasr_jax.models.chat import TOOL_CALLS

INDEX = "img_idx"
_OPEN, _CLOSE = TOOL_CALLS.call
_LIST = re.compile(r'"(\w+)": \[([^\]]*)\]')  # of a tool's example
_TASK = (
    "You answer questions about images. Think step by step, and look again with a tool where that helps: it "
    "gives back an image with the next number. Images are numbered from 1; img_idx, by which a call names an "
    "image, is its number minus 1. "
)
_WITHOUT_TOOLS = "You answer questions about images. Think step by step. "
_ANSWER = "\nWhen you are certain, write the answer between <answer> and </answer>."


class ToolCall(ActionFormat):
    id = "tool_call"
    first = 0
    index_name = INDEX

    def system(self, prompts, tools, sizes, video, side):
        frames = PROMPTS["vilasr_jax"].video.format(count=len(sizes)) if video else ""
        task = (_TASK if tools else _WITHOUT_TOOLS) + frames + unit_text(side) + _ANSWER
        listed = "\n".join(json.dumps(signature(tool)) for tool in tools)
        return f"{task}\n\n{TOOL_CALLS.system.replace('{tools}', listed)}" if tools else task

    def index_text(self, prompts, number, size, drawn=False):
        return f"Image {number} has {INDEX} {number - 1} (width: {size[0]}, height: {size[1]}).\n"

    def parse(self, text, tools, given=1):
        errors: list[str] = []
        if len(text) > MAX_TEXT:
            errors.append("the turn is too long")
            text = text[:MAX_TEXT]
        think, rest = split_think(text)
        answer, rest = split_answer(rest)
        calls: list[Call] = []
        action = None if answer is None else "Answer"
        for number, call in enumerate(_calls(rest, errors) if tools else (), 1):
            try:
                tool, item = _item(call, tools, given)
                action = action or tool.name
                calls.append(tool.read(item))
            except ItemError as error:
                errors.append(f"item {number}: {error}")
        strict = not errors and _is_strict(text, tools)
        return ParsedTurn(think, action, tuple(calls), answer, tuple(errors[:MAX_ERRORS]), strict)

    def reply(self, result, words):
        before, after = ({"type": "text", "text": text} for text in TOOL_CALLS.result)
        words = [{**words, "text": f"\n{words['text']}"}] if words["text"] else []
        return [before, *result, after, *words]

    def write(self, text, tools):
        _, rest = split_think(text)
        think = text[: len(text) - len(rest)].rstrip()
        action = find_action(rest, tools)
        answer, others = split_answer(rest)
        if answer is not None:
            return f"{think}\n<answer> {answer} </answer>"
        try:
            calls = [_call(item, tool_of(item, tools, action)) for item in find_items(others, [])]
        except ItemError:
            return text
        written = [f"{_OPEN}{json.dumps(call, ensure_ascii=False)}{_CLOSE}" for call in calls]
        return "\n".join([think, *written]) if written else text


def function_name(tool: Tool) -> str:
    """What calls name the tool."""
    return tool.function or tool.id


def signature(tool: Tool) -> dict[str, Any]:
    """The tool as a function, in JSON Schema."""
    lists = {key: [name.strip() for name in names.split(",")] for key, names in _LIST.findall(tool.example)}
    properties: dict[str, Any] = {
        key: {
            "type": "array",
            "items": {"type": "number"},
            "minItems": len(names),
            "maxItems": len(names),
            "description": ", ".join(names),
        }
        for key, names in lists.items()
        if key in tool.keys
    }
    properties["label"] = {"type": "string", "description": "The name of what is there"}
    properties[INDEX] = {"type": "number", "description": "The number of the image minus 1"}
    purpose = tool.purpose[:1].upper() + tool.purpose[1:]
    parameters = {"type": "object", "properties": properties, "required": [*properties]}
    function = {"name": function_name(tool), "description": purpose, "parameters": parameters}
    return {"type": "function", "function": function}


def _call(item: dict[str, Any], tool: Tool) -> dict[str, Any]:
    """An item of the published form as a call."""
    arguments = {key: value for key, value in item.items() if key != "index"}
    return {"name": function_name(tool), "arguments": {**arguments, INDEX: read_index(item) - 1}}


def _blocks(rest: str) -> Iterator[str]:
    """What is between the tags of each call; an unclosed one ends at the next or with the text."""
    opening, closing = _OPEN.strip(), _CLOSE.strip()
    for part in rest.split(opening)[1 : MAX_ITEMS + 2]:
        yield part.partition(closing)[0].strip()


def _calls(rest: str, errors: list[str]) -> list[Any]:
    """The calls of a turn as they were written."""
    calls: list[Any] = []
    for block in _blocks(rest):
        value, complete = read_value(block, MAX_ITEMS + 1)
        found = value if isinstance(value, list) else [value] if isinstance(value, dict) else []
        calls += found[: MAX_ITEMS + 1]
        if not complete:
            errors.append("the json can't be read")
        elif not found:
            errors.append("a call must be a json object")
    if len(calls) > MAX_ITEMS:
        errors.append(f"only {MAX_ITEMS} calls a turn are carried out")
    return calls[:MAX_ITEMS]


def _item(call: Any, tools: Sequence[Tool], given: int) -> tuple[Tool, dict[str, Any]]:
    """The tool that a call names, and its arguments as an item of the published form."""
    named = {function_name(tool): tool for tool in tools}
    name = call.get("name") if isinstance(call, dict) else None
    if not isinstance(name, str) or name.strip() not in named:
        raise ItemError(f"name must be that of a function: {', '.join(named)}")
    arguments = call.get("arguments")
    if isinstance(arguments, str):
        arguments, _ = read_value(arguments)
    if not isinstance(arguments, dict):
        raise ItemError("arguments must be a json object")
    return named[name.strip()], {**arguments, "index": _index(arguments, given)}


def _index(arguments: dict[str, Any], given: int) -> int:
    """The number of the call's image from 1, by default that of the only given one."""
    value = arguments.get(INDEX)
    if value is None:
        if given > 1 or "index" in arguments:
            raise ItemError(f"{INDEX} is missing")
        value = 0
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 10:
        value = int(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < MAX_COORDINATE:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MAX_COORDINATE:
        raise ItemError(f"{INDEX} must be the number of an image")
    return value + 1


def _is_strict(text: str, tools: Sequence[Tool]) -> bool:
    """Thoughts, in one pair of tags or none, then well-formed calls or the answer, and nothing after them."""
    text = text.strip()
    if text.count("<think>") != text.count("</think>") or text.count("<think>") > 1:
        return False
    if "<think>" in text and not text.startswith("<think>"):
        return False
    rest = text.partition("</think>")[2] if "</think>" in text else text
    opening, closing = _OPEN.strip(), _CLOSE.strip()
    if "<answer>" in rest or "</answer>" in rest:
        one = rest.count("<answer>") == 1 == rest.count("</answer>")
        return one and rest.endswith("</answer>") and opening not in rest and closing not in rest
    _, *blocks = rest.split(opening)
    ends = [block.partition(closing) for block in blocks]
    return bool(ends) and all(
        end and not after.strip() and _complete(body, tools) for body, end, after in ends
    )


def _complete(body: str, tools: Sequence[Tool]) -> bool:
    call = read_json(body)
    if not isinstance(call, dict) or call.keys() != {"name", "arguments"}:
        return False
    name, arguments = call["name"], call["arguments"]
    tool = next((tool for tool in tools if function_name(tool) == name), None)
    return bool(tool and isinstance(arguments, dict) and INDEX in arguments and tool.complete(arguments))
