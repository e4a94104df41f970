"""Reads the items of a published file, a JSON list or JSON lines, one at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from etils import epath

from vilasr_jax.errors import DataError

NOT_UTF8 = "isn't UTF-8; save the file as UTF-8 (in Excel: CSV UTF-8)"
OTHER_BYTES = re.compile("[\udc80-\udcff]")  # what "surrogateescape" makes of bytes that are not UTF-8
_SPACE = re.compile(r"[\s,]*")
_OBJECT = re.compile(r"(?:\}\s*,\s*)?(\{)")
_FIRST_KEY = re.compile(r'\{\s*"([^"\\]+)"')


@dataclass(frozen=True)
class Item:
    """One item and the line it starts on (from 1); `error` says why there is no `value`.

    `at` is the fraction of the file before it.
    """

    line: int
    value: dict[str, Any] | None
    error: str | None
    at: float


def read_items(path: epath.Path) -> Iterator[Item]:
    """Every item of a file, broken ones with an `error`; DataError when the file is neither kind."""
    try:
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error})") from None
    start = text[:4096].lstrip()
    if start.startswith("["):
        return _list_items(text)
    if start.startswith("{"):
        return _line_items(text)
    if not text.strip():
        raise DataError(f"{path}: is empty")
    raise DataError(f"{path}: holds neither a JSON list nor JSON lines")


def _line_items(text: str) -> Iterator[Item]:
    at = 0
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                value = json.loads(line)
                yield _item(number, value, at / len(text), OTHER_BYTES.search(line) is not None)
            except (ValueError, RecursionError) as error:
                yield Item(number, None, f"isn't valid JSON ({_reason(error)})", at / len(text))
        at += len(line) + 1


def _list_items(text: str) -> Iterator[Item]:
    """Reads on after a broken item, from the next that looks like the others, and names where that is."""
    decoder, number, counted = json.JSONDecoder(), 1, 0
    at, keys = text.index("[") + 1, _Keys()
    while True:
        space = _SPACE.match(text, at)
        assert space is not None, "it matches nothing, too"
        at = space.end()
        number, counted = number + text.count("\n", counted, at), at
        if at >= len(text):
            yield Item(number, None, "the list has no end: the file is cut off", 1.0)
            return
        if text[at] == "]" and not text[at + 1 :].strip():
            return
        try:
            if text[at] == "]":
                raise ValueError("the list ends here, and more text is after it")
            key = _FIRST_KEY.match(text, at)
            keys.first.update(key.groups() if key else ())
            value, end = decoder.raw_decode(text, at)
            keys.all.update(value if isinstance(value, dict) else ())
            yield _item(number, value, at / len(text), OTHER_BYTES.search(text, at, end) is not None)
            at = end
        except (ValueError, RecursionError) as error:
            found = keys.next_item(text, at + 1)
            rest = "nothing after it is" if found is None else f"read again from line {_line(text, found)}"
            yield Item(number, None, f"isn't valid JSON ({_reason(error)}); {rest}", at / len(text))
            if found is None:
                return
            at = found


@dataclass
class _Keys:
    """The keys of a list's items, by which the next item is found after a broken one."""

    first: set[str] = field(default_factory=set)  # those that items begin with
    all: set[str] = field(default_factory=set)

    def next_item(self, text: str, at: int) -> int | None:
        """Where the next item begins; None where there is none.

        That is an object with the first key of another or, after an object's end, with any key of another.
        """
        for found in _OBJECT.finditer(text, at):
            start = found.start(1)
            key = _FIRST_KEY.match(text, start)
            if key and (key[1] in self.first or not self.first):
                return start
            if found[0][0] == "}" and self._has_known_key(text, start):
                return start
        return None

    def _has_known_key(self, text: str, start: int) -> bool:
        try:
            value, _ = json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError):
            return False
        return not self.all.union(self.first).isdisjoint(value)


def _item(line: int, value: Any, at: float, other_bytes: bool) -> Item:
    if other_bytes:
        return Item(line, None, NOT_UTF8, at)
    if isinstance(value, dict):
        return Item(line, value, None, at)
    return Item(line, None, f"is {type(value).__name__}, not an object", at)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return getattr(error, "msg", None) or str(error)


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
