"""Reads the JSON that models really write: JSON, Python literals, trailing commas, or a text cut short.

Linear in the text, bounded in depth, and it never raises: what was complete is returned, with a flag that
says whether the value was complete.
"""

import json
import math
import re
import sys
from typing import Any

_MAX_DEPTH = 16
_MAX_NUMBER = 64  # characters; a longer number is read as infinite
_SPACE = re.compile(r"[\s,]+")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"|' r"'((?:[^'\\]|\\.)*)'", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_WORD = re.compile(r"[-+]?[A-Za-z]{1,9}")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_WORDS = {
    "true": True,
    "false": False,
    "null": None,
    "none": None,
    "nan": math.nan,
    "infinity": math.inf,
    "-infinity": -math.inf,
    "inf": math.inf,
    "-inf": -math.inf,
}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_CLOSERS = {"[": "]", "(": ")", "{": "}"}
_CUT = object()


def read_value(text: str, max_items: int = sys.maxsize) -> tuple[Any, bool]:
    """The first value in `text` and whether it was complete; `(None, False)` where there is none.

    A list is read to its end, or until it has `max_items` items at least, and then counts as complete.
    """
    try:
        return json.loads(text, parse_int=_number), True
    except (ValueError, RecursionError):
        pass
    reader = _Reader(text, max_items)
    value = reader.value(0)
    return (None, False) if value is _CUT else (value, not reader.broken)


def _number(token: str) -> int | float:
    if len(token) > _MAX_NUMBER:
        return math.inf
    token = token.replace("_", "")
    try:
        return int(token)
    except ValueError:
        return float(token)


def _unescape(match: re.Match) -> str:
    code = match.group(1)
    return chr(int(code[1:], 16)) if len(code) == 5 else _ESCAPES.get(code, code)


class _Reader:
    """Recursive descent over `text`; `broken` is set at the first thing that can't be read."""

    def __init__(self, text: str, max_items: int):
        self.text, self.max_items, self.pos, self.broken = text, max_items, 0, False

    def skip(self) -> str:
        """Skips space and commas; the next character, or '' at the end."""
        char = self.text[self.pos : self.pos + 1]
        if char == "," or char.isspace():
            space = _SPACE.match(self.text, self.pos)
            assert space is not None, "one character at least"
            self.pos = space.end()
            char = self.text[self.pos : self.pos + 1]
        return char

    def value(self, depth: int) -> Any:
        char = self.skip()
        if char in _CLOSERS:
            if depth >= _MAX_DEPTH:
                return self.fail()
            self.pos += 1
            return self.mapping(depth + 1) if char == "{" else self.sequence(depth + 1, _CLOSERS[char])
        if char in ('"', "'"):
            kinds: tuple = ((_STRING, self.string),)
        else:
            kinds = ((_NUMBER, self.number), (_WORD, self.word))
        for pattern, convert in kinds:
            match = pattern.match(self.text, self.pos)
            if match:
                self.pos = match.end()
                return convert(match)
        return self.fail()

    def sequence(self, depth: int, closer: str) -> list:
        items: list[Any] = []
        while True:
            char = self.skip()
            if char == closer:
                self.pos += 1
                return items
            item = self.value(depth)
            if item is not _CUT:
                items.append(item)
                if depth == 1 and len(items) >= self.max_items:
                    return items
            if self.broken:
                return items if depth == 1 else self.fail()

    def mapping(self, depth: int) -> Any:
        found: dict[Any, Any] = {}
        while True:
            char = self.skip()
            if char == "}":
                self.pos += 1
                return found
            key = self.value(depth)
            if self.broken or not isinstance(key, str) or self.skip() != ":":
                return self.fail()
            self.pos += 1
            found[key] = self.value(depth)
            if self.broken:
                return self.fail()

    def string(self, match: re.Match) -> str:
        body = match.group(1) if match.group(1) is not None else match.group(2)
        return _ESCAPE.sub(_unescape, body) if "\\" in body else body

    def number(self, match: re.Match) -> int | float:
        return _number(match.group())

    def word(self, match: re.Match) -> Any:
        word = match.group().lower()
        return _WORDS[word] if word in _WORDS else self.fail()

    def fail(self) -> Any:
        self.broken = True
        return _CUT
