"""Reads the items of a published file, a JSON list or JSON lines, one at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from etils import epath

from vilasr_jax.errors import DataError

_SPACE = re.compile(r"[\s,]*")
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
        text = path.read_bytes().decode("utf-8-sig", "replace")
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error})") from None
    start = text[:4096].lstrip()
    if start.startswith("["):
        return _list_items(text)
    if start.startswith("{"):
        return _line_items(text)
    raise DataError(f"{path}: holds neither a JSON list nor JSON lines")


def _line_items(text: str) -> Iterator[Item]:
    at = 0
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield _item(number, json.loads(line), at / len(text))
            except (ValueError, RecursionError) as error:
                yield Item(number, None, f"isn't valid JSON ({_reason(error)})", at / len(text))
        at += len(line) + 1


def _list_items(text: str) -> Iterator[Item]:
    """Reads on after a broken item, from the next one that starts with the same key."""
    decoder, number, counted = json.JSONDecoder(), 1, 0
    at, first_key = text.index("[") + 1, None
    while True:
        space = _SPACE.match(text, at)
        assert space is not None, "it matches nothing, too"
        at = space.end()
        if at >= len(text) or text[at] == "]":
            return
        number, counted = number + text.count("\n", counted, at), at
        key = _FIRST_KEY.match(text, at)
        first_key = key[1] if key else first_key
        try:
            value, end = decoder.raw_decode(text, at)
            yield _item(number, value, at / len(text))
            at = end
        except (ValueError, RecursionError) as error:
            yield Item(number, None, f"isn't valid JSON ({_reason(error)})", at / len(text))
            again = re.compile(r'\{\s*"' + re.escape(first_key or "") + (r'"' if first_key else ""))
            found = again.search(text, at + 1)
            if not found:
                return
            at = found.start()


def _item(line: int, value: Any, at: float) -> Item:
    if isinstance(value, dict):
        return Item(line, value, None, at)
    return Item(line, None, f"is {type(value).__name__}, not an object", at)


def _reason(error: Exception) -> str:
    return getattr(error, "msg", None) or "nested too deeply"
