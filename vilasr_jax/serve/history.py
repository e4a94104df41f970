"""Earlier turns of a chat, which become part of the one question that the model answers, or are left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from vilasr_jax.drawing import tagged_answer
from vilasr_jax.serve.limits import Limits

HISTORY = ("refuse", "fold", "ignore")
_DRAWN = re.compile(r"!\[[^\]]*\]\(data:[^)]*\)")  # a picture of `NAME:markdown`
_MOST = 300  # characters of an earlier reply without an answer
_SYSTEM = ("system", "developer")
_TEXTS = ("text", "input_text", "output_text")


def one_question(messages: Any, limits: Limits) -> Any:
    """The messages of a chat as those of one question, by `limits.history`.

    - "refuse": as they are; a request with earlier turns is refused when it is read.
    - "fold": earlier questions and answers are text before the question; earlier pictures come first.
    - "ignore": only the last user message counts, with the pictures of the newest message that has some.

    What isn't a list of messages, or holds one question alone, is returned as it is. Of pictures and text
    beyond the limits the newest stay.
    """
    if limits.history == "refuse" or not _is_readable(messages):
        return messages
    roles = [message.get("role") for message in messages]
    if "user" not in roles:
        return messages
    last = len(roles) - 1 - roles[::-1].index("user")
    first = _first_of_question(messages, last)
    system = [message for message in messages[:last] if message.get("role") in _SYSTEM]
    earlier = [message for message in messages[:first] if message.get("role") in ("user", "assistant")]
    if not earlier:
        return messages
    turn = [message for message in messages[first : last + 1] if message.get("role") == "user"]
    own = [part for message in turn for part in _parts(message)]
    given = [_pictures(message) for message in earlier if message["role"] == "user"]
    room = limits.images - sum(len(_pictures(message)) for message in turn)
    if limits.history == "fold":
        old = [part for parts in given for part in parts]
        text = _as_text(earlier, limits.text // 2)
    else:
        newest = [] if any(map(_pictures, turn)) else [parts for parts in given if parts][-1:]
        old, text = [part for parts in newest for part in parts], ""
    content = [*old[max(0, len(old) - room) :], *([{"type": "text", "text": text}] if text else []), *own]
    return [*system, {**messages[last], "content": content}, *messages[last + 1 :]]


def _first_of_question(messages: Sequence[dict], last: int) -> int:
    """The place of the first message of the question that ends with the user's message at `last`.

    It is of several messages where only one of them holds text: some clients send an image in its own.
    """
    first = at = last
    worded = bool(_text(messages[last]))
    while at and messages[at - 1].get("role") in ("user", *_SYSTEM):
        at -= 1
        if messages[at]["role"] == "user":
            text = bool(_text(messages[at]))
            if text and worded:
                break
            first, worded = at, worded or text
    return first


def _is_readable(messages: Any) -> bool:
    """Whether all messages have shapes that are known."""
    return isinstance(messages, list) and all(
        isinstance(message, dict)
        and isinstance(message.get("content"), (str, list, type(None)))
        and all(isinstance(part, (str, dict)) for part in _parts(message))
        for message in messages
    )


def _parts(message: dict) -> list[Any]:
    content = message.get("content") or []
    return [content] if isinstance(content, str) else list(content)


def _pictures(message: dict) -> list[dict]:
    return [part for part in _parts(message) if isinstance(part, dict) and part.get("type") not in _TEXTS]


def _text(message: dict) -> str:
    texts = [part if isinstance(part, str) else part.get("text") for part in _parts(message)]
    return _DRAWN.sub("", "\n".join(text for text in texts if isinstance(text, str))).strip()


def _as_text(earlier: Sequence[dict], most: int) -> str:
    """Earlier questions with their answers as text, the newest that fit into `most` characters."""
    turns: list[list[str]] = []
    role = "assistant"
    for message in earlier:
        if message["role"] == "user" and role == "assistant":
            turns.append([])
        turns = turns or [[]]
        text, role = _text(message), message["role"]
        if message["role"] == "assistant":
            text = (tagged_answer(text) or text)[-_MOST:]
        if not text:
            continue
        turns[-1].append(f"Earlier {'question' if role == 'user' else 'answer'}: {text}")
    lines: list[str] = []
    for turn in reversed(turns):
        if sum(map(len, [*turn, *lines])) > most:
            break
        lines = [*turn, *lines]
    return "\n".join(lines)
