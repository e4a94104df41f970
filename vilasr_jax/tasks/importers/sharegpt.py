"""Recorded conversations (ViLaSR-data: cold start, reflective rejection sampling), in the sharegpt layout:

    {"conversations": [{"role": "system" | "user" | "assistant", "content": "... <image> ..."}],
     "images": [...]}

`images` are those of all messages, in order: the given ones, then the drawn ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vilasr_jax.drawing import tagged_answer
from vilasr_jax.errors import DataError
from vilasr_jax.tasks.importers.fields import Draft, image_paths_of
from vilasr_jax.tasks.stored import IMAGE_MARK

_ROLES = ("system", "user", "assistant")
_LETTER = re.compile(r"\(?[A-Za-z]\)?\.?\Z")
_NUMBER = re.compile(r"[-+]?[\d,]*\.?\d+\Z")


def read_sharegpt(item: Mapping[str, Any], source: str) -> Draft:
    """A conversation as a row: its question and given pictures, its answer, and its messages as recorded.

    `source` is the file's name, which says where the questions come from (vqa, maze, ...).
    """
    messages = tuple(_message(number, m) for number, m in enumerate(_list(item, "conversations"), 1))
    roles = [message["role"] for message in messages]
    if "user" not in roles or roles[-1] != "assistant":
        raise DataError("conversations must hold a user message and end with the assistant's")
    asked = messages[roles.index("user")]["content"]
    if any(IMAGE_MARK in m["content"] for m in messages if m["role"] == "assistant"):
        raise DataError("an assistant message holds an image")
    paths = image_paths_of(item, "images")
    marks = sum(message["content"].count(IMAGE_MARK) for message in messages)
    if marks != len(paths):
        raise DataError(f"conversations hold {marks} {IMAGE_MARK}, images {len(paths)} paths")
    if IMAGE_MARK not in asked:
        raise DataError(f"the first user message holds no {IMAGE_MARK}")
    answer = tagged_answer(messages[-1]["content"]) or ""
    return Draft(
        question=asked.replace(IMAGE_MARK, "").strip(),
        answer=answer,
        question_type=_guess_type(answer),
        options=(),
        image_paths=paths,
        data_type=source,
        messages=messages,
    )


def _list(item: Mapping[str, Any], key: str) -> list:
    value = item.get(key)
    if not isinstance(value, list) or not value:
        raise DataError(f"{key} is {'missing' if value is None else repr(value)[:60]}; a list is needed")
    return value


def _message(number: int, message: Any) -> dict[str, str]:
    if not isinstance(message, dict) or not isinstance(message.get("content"), str):
        raise DataError(f"message {number} of conversations has no text content")
    if message.get("role") not in _ROLES:
        raise DataError(f"message {number} of conversations has role {message.get('role')!r}")
    return {"role": message["role"], "content": message["content"]}


def _guess_type(answer: str) -> str:
    if _LETTER.match(answer):
        return "multiple choice"
    return "numerical" if _NUMBER.match(answer) else "free-form"
