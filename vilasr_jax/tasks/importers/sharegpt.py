"""Recorded conversations (ViLaSR-data: cold start, reflective rejection sampling), in the sharegpt layout:

    {"conversations": [{"role": "system" | "user" | "assistant", "content": "... <image> ..."}],
     "images": [...]}

`images` are those of all messages, in order: the given ones, then the drawn ones. Other trainers' dialects of
it are read, too: `messages` for `conversations`, `from` and `value` for `role` and `content`, human and gpt,
tool and observation (what a tool gives back), a content that is a list of text and image parts, `image` for
`images`, and a `system` next to the conversations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vilasr_jax.drawing import tagged_answer
from vilasr_jax.errors import DataError
from vilasr_jax.tasks.importers.fields import Draft, image_paths_of
from vilasr_jax.tasks.stored import IMAGE_MARK

_ROLES = {
    **{role: role for role in ("system", "user", "assistant")},
    **dict.fromkeys(("human", "tool", "observation", "function_response"), "user"),
    **dict.fromkeys(("gpt", "model"), "assistant"),
}
_LETTER = re.compile(r"\(?[A-Za-z]\)?\.?\Z")
_NUMBER = re.compile(r"[-+]?[\d,]*\.?\d+\Z")


def read_sharegpt(item: Mapping[str, Any], source: str) -> Draft:
    """A conversation as a row: its question and given images, its answer, and its messages as recorded.

    `source` is the file's name, which says where the questions come from (vqa, maze, ...).
    """
    key, messages = _key(item), read_messages(item)
    roles = [message["role"] for message in messages]
    if "user" not in roles or roles[-1] != "assistant":
        raise DataError(f"{key} must hold a user message and end with the assistant's")
    first = messages[roles.index("user")]["content"]
    if any(IMAGE_MARK in m["content"] for m in messages if m["role"] == "assistant"):
        raise DataError("an assistant message holds an image")
    paths = image_paths_of(item, "image" if "images" not in item and "image" in item else "images")
    marks = sum(message["content"].count(IMAGE_MARK) for message in messages)
    if marks != len(paths):
        raise DataError(f"{key} hold {marks} {IMAGE_MARK}, images {len(paths)} paths")
    if IMAGE_MARK not in first:
        raise DataError(f"the first user message holds no {IMAGE_MARK}")
    answer = tagged_answer(messages[-1]["content"]) or ""
    return Draft(
        question=first.replace(IMAGE_MARK, "").strip(),
        answer=answer,
        question_type=_guess_type(answer),
        options=(),
        image_paths=paths,
        data_type=source,
        messages=messages,
    )


def read_messages(item: Mapping[str, Any]) -> tuple[dict[str, str], ...]:
    """The messages of a conversation, each {"role", "content"}, a system text first."""
    key = _key(item)
    messages = tuple(_message(f"message {n} of {key}", m) for n, m in enumerate(_list(item, key), 1))
    if isinstance(item.get("system"), str) and item["system"] and messages[0]["role"] != "system":
        messages = ({"role": "system", "content": item["system"]}, *messages)
    return messages


def _key(item: Mapping[str, Any]) -> str:
    return "messages" if "conversations" not in item and "messages" in item else "conversations"


def _list(item: Mapping[str, Any], key: str) -> list:
    value = item.get(key)
    if not isinstance(value, list) or not value:
        raise DataError(f"{key} is {'missing' if value is None else repr(value)[:60]}; a list is needed")
    return value


def _message(where: str, message: Any) -> dict[str, str]:
    message = message if isinstance(message, dict) else {}
    content = message.get("content", message.get("value"))
    if isinstance(content, list):
        content = _joined(content)
    if not isinstance(content, str):
        raise DataError(f"{where} has no text content")
    role = message.get("role", message.get("from"))
    if not isinstance(role, str) or role not in _ROLES:
        raise DataError(f"{where} has role {role!r}; there are: {', '.join(_ROLES)}")
    return {"role": _ROLES[role], "content": content}


def _joined(parts: list) -> str | None:
    """Text and image parts as one text; None where a part is neither."""
    texts = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("text") if kind == "text" else IMAGE_MARK if kind == "image" else None
        if not isinstance(text, str):
            return None
        texts.append(text)
    return "".join(texts)


def _guess_type(answer: str) -> str:
    if _LETTER.match(answer):
        return "multiple choice"
    return "numerical" if _NUMBER.match(answer) else "free-form"
