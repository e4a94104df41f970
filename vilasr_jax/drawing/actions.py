"""Parser of a turn: its thoughts, its drawing calls and its answer.

    <think> ... </think> Action: Object Mapper
    ```json
    [{"index": 1, "bbox_2d": [x1, y1, x2, y2], "label": "chair"}]
    ```

or at the end `Action: Answer` and `<answer> B </answer>`. The parser accepts far more than the published form
and never raises; `strict_format` says whether a turn has exactly the published form, and can
be read.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vilasr_jax.drawing.calls import Call
from vilasr_jax.drawing.lenient_json import read_value
from vilasr_jax.drawing.tools import PUBLISHED, ItemError, Tool, get_tools

MAX_TEXT = 100_000  # characters of a turn that are read
MAX_ITEMS = 64  # items of a turn that are read
MAX_ERRORS = 3  # errors that are reported to the model
_MAX_BLOCKS = 16
_ACTION = re.compile(
    r"action\*{0,2}\s{0,4}:\s{0,4}[\s*`\"'\[<(]{0,4}([a-z]{1,20}(?:[ _-][a-z]{1,20}){0,3})", re.IGNORECASE
)
_FENCE = re.compile(r"```[ \t]{0,4}[A-Za-z0-9_+-]{0,12}")
_ANSWER = re.compile(
    r"<answer>(?:\s*<answer>)*(.*?)(</answer>|<answer>|</think>|<\|im_end\|>|<\|endoftext\|>|\Z)", re.DOTALL
)
_OPENING = re.compile(r"\[\s{0,8}[\[{(]|\{\s{0,8}[\"'}]")


@dataclass(frozen=True)
class ParsedTurn:
    """One parsed assistant turn. `action` is a tool's name, "Answer" or None; `errors` are for the model."""

    think: str | None
    action: str | None
    calls: tuple[Call, ...]
    answer: str | None
    errors: tuple[str, ...]
    strict_format: bool


def parse_actions(text: str, tools: Sequence[Tool] | None = None) -> ParsedTurn:
    """Parses one assistant turn. Never raises; time and memory are linear in `MAX_TEXT` at most.

    `tools` are the enabled ones, the published two when not given.
    """
    tools = get_tools(PUBLISHED) if tools is None else tools
    errors: list[str] = []
    if len(text) > MAX_TEXT:
        errors.append("the turn is too long")
        text = text[:MAX_TEXT]
    think, rest = split_think(text)
    action = find_action(rest, tools)
    answer, rest = split_answer(rest)
    items = find_items(rest, errors) if tools else []
    calls = _read_items(items, tools, action, errors)
    if action == "Answer" and answer is None:
        errors.append("Action: Answer needs <answer> ... </answer>")
    elif action and action != "Answer" and not calls and not errors:
        errors.append(f"Action: {action} needs a json list")
    strict = not errors and _is_strict(text, tools)
    return ParsedTurn(think, action, tuple(calls), answer, tuple(errors[:MAX_ERRORS]), strict)


def tagged_answer(text: str) -> str | None:
    """The answer of a turn: the text of the first `<answer>` after the thoughts, None without.

    It ends at the next tag or at the end of the text. Rewards and scores use this function.
    """
    return split_answer(split_think(text[:MAX_TEXT])[1])[0]


def split_think(text: str) -> tuple[str | None, str]:
    """What is between the think tags, and the text after them (all of it without a closing tag)."""
    end = text.find("</think>")
    if end < 0:
        return None, text
    start = text.find("<think>", 0, end)
    return text[start + len("<think>") if start >= 0 else 0 : end].strip(), text[end + len("</think>") :]


def find_action(rest: str, tools: Sequence[Tool]) -> str | None:
    """The tool's name after "Action:", or "Answer"."""
    names = {_fold(tool.name): tool.name for tool in tools} | {"answer": "Answer"}
    for match in _ACTION.finditer(rest):
        words = _fold(match.group(1)).split(" ")
        for count in range(len(words), 0, -1):
            name = names.get(" ".join(words[:count]))
            if name:
                return name
    return None


def _fold(name: str) -> str:
    return name.lower().replace("_", " ").replace("-", " ")


def split_answer(rest: str) -> tuple[str | None, str]:
    """The answer (an unclosed one runs to the next tag), and the text without it."""
    match = _ANSWER.search(rest)
    if match is None:
        return None, rest
    return match[1].strip(), rest[: match.start()] + rest[match.end() :]


def find_items(rest: str, errors: list[str]) -> list[Any]:
    """Every item of every json block, or of the first bare list where there is no fence."""
    blocks: list[str] = []
    start = _FENCE.search(rest)
    while start and len(blocks) < _MAX_BLOCKS:
        end = rest.find("```", start.end())
        blocks.append(rest[start.end() : end if end >= 0 else None].strip())
        start = _FENCE.search(rest, end + 3) if end >= 0 else None
    if not blocks:
        bare = _OPENING.search(rest)
        blocks = [rest[bare.start() :]] if bare else []
    items: list[Any] = []
    for block in blocks:
        value, complete = read_value(block, MAX_ITEMS + 1)
        found = value if isinstance(value, list) else [value] if isinstance(value, dict) else []
        if len(found) == 1 and isinstance(found[0], list):
            found = found[0]
        items += found[: MAX_ITEMS + 1]
        if not complete:
            place = f" after item {min(len(items), MAX_ITEMS)}" if found else ""
            errors.append("the json can't be read" + place)
        elif not found:
            errors.append("the json must be a list of items")
    if len(items) > MAX_ITEMS:
        errors.append(f"only {MAX_ITEMS} items a turn are drawn")
    return items[:MAX_ITEMS]


def _read_items(items: list[Any], tools: Sequence[Tool], action: str | None, errors: list[str]) -> list[Call]:
    calls = []
    for number, item in enumerate(items, 1):
        try:
            calls.append(tool_of(item, tools, action).read(item))
        except ItemError as error:
            errors.append(f"item {number}: {error}")
    return calls


def tool_of(item: Any, tools: Sequence[Tool], action: str | None) -> Tool:
    """The tool whose keys the item has; where none fits, the one the action names."""
    if not isinstance(item, dict):
        raise ItemError("must be a json object")
    named = [tool for tool in tools if tool.name == action]
    for tool in named + list(tools):
        if tool.owns(item):
            return tool
    if not named:
        raise ItemError("needs " + " or ".join(" and ".join(tool.keys) for tool in tools if tool.keys))
    return named[0]


def _is_strict(text: str, tools: Sequence[Tool]) -> bool:
    """The published rule for one turn: `<think>..</think> Action: X`, then valid JSON items or the answer."""
    text = text.strip()
    if not text.startswith("<think>") or text.count("<think>") != 1 or text.count("</think>") != 1:
        return False
    rest = text[text.find("</think>") + len("</think>") :].strip()
    line, _, body = rest.partition("\n")
    if not line.startswith("Action: "):
        return False
    name, body = line[len("Action: ") :].strip(), body.strip()
    if name == "Answer":
        one = body.count("<answer>") == 1 == body.count("</answer>")
        return one and body.startswith("<answer>") and body.endswith("</answer>") and "```" not in body
    if name not in [tool.name for tool in tools] or "<answer>" in rest:
        return False
    usable = [tool for tool in tools if tool.keys or tool.name == name]
    parts = body.split("```")  # before, block, between, block, after
    if len(parts) < 3 or len(parts) % 2 == 0:
        return False
    return all(_is_strict_block(block, usable) for block in parts[1::2])


def _is_strict_block(block: str, tools: Sequence[Tool]) -> bool:
    if not block.startswith("json"):
        return False
    items = read_json(block[len("json") :])
    if not isinstance(items, list) or not items:
        return False
    return all(isinstance(item, dict) and any(tool.complete(item) for tool in tools) for item in items)


def read_json(text: str) -> Any:
    """The value of a text that is JSON, without NaN or infinity; None of any other text."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(name: str) -> None:
    raise ValueError(name)
