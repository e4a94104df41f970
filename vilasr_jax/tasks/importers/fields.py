"""Reads the fields of one published item for all importers, with errors that name the key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vilasr_jax.errors import DataError

QUESTION_TYPES = ("multiple choice", "numerical", "regression", "vci", "free-form")
_TAGS = re.compile(r"</?answer>")


@dataclass(frozen=True)
class Draft:
    """A row whose images are still paths.

    `messages` holds a recorded conversation, else nothing; `marks` (see `Marks`) become one when they are
    stored.
    """

    question: str
    answer: str
    question_type: str
    options: tuple[str, ...]
    image_paths: tuple[str, ...]
    data_type: str
    meta: dict[str, Any] = field(default_factory=dict)
    messages: tuple[dict[str, str], ...] = ()
    marks: Any = None
    seconds: tuple[float, ...] = ()  # times of a video's frames


def text_of(item: Mapping[str, Any], key: str) -> str:
    """The value of a key as non-empty text, also of a number; DataError without."""
    value = item.get(key)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{key} is {'missing' if value is None else repr(value)}; a text is needed")
    return value


def answer_of(item: Mapping[str, Any]) -> str:
    """The answer without its `<answer>` tags."""
    answer = _TAGS.sub("", text_of(item, "answer")).strip()
    if not answer:
        raise DataError("answer is empty")
    return answer


def question_type_of(item: Mapping[str, Any], key: str) -> str:
    """One of `QUESTION_TYPES`, however it is written."""
    words = text_of(item, key).strip().lower().replace("_", " ").replace("-", " ")
    kind = "free-form" if words == "free form" else words
    if kind not in QUESTION_TYPES:
        raise DataError(f"{key} {item[key]!r} is unknown; there are: {', '.join(QUESTION_TYPES)}")
    return kind


def options_of(item: Mapping[str, Any]) -> tuple[str, ...]:
    """The choices, none when the item has none."""
    options = item.get("options")
    if options is None or options == "":
        return ()
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise DataError(f"options is {options!r}; a list of texts is needed")
    return tuple(options)


def image_paths_of(item: Mapping[str, Any], key: str = "image_path") -> tuple[str, ...]:
    """One path or several."""
    paths = item.get(key)
    paths = [paths] if isinstance(paths, str) else paths
    if not isinstance(paths, list) or not paths or not all(isinstance(path, str) and path for path in paths):
        raise DataError(f"{key} is {item.get(key)!r}; a path or a list of paths is needed")
    return tuple(paths)


def present_fields(item: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """The item's values of those keys that have one."""
    return {key: item[key] for key in keys if item.get(key) is not None}
