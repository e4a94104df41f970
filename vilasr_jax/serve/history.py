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
_TEXTS = ("text", "input_text", "output_text")


def one_question(messages: Any, limits: Limits) -> Any:
    """The messages of a chat as those of one question, by `limits.history`.

    - "refuse": as they are; a request with earlier turns is refused when it is read.
    - "fold": earlier questions and answers are text before the question; earlier pictures come first.
    - "ignore": only the last user message counts, with the pictures of the newest message that has some.

    What isn't a list of messages is returned as it is. Of pictures and text beyond the limits the newest
    stay.
    """
    if limits.history == "refuse" or not _is_chat(messages):
        return messages
    roles = [message.get("role") for message in messages]
    if "user" not in roles:
        return messages
    last = len(roles) - 1 - roles[::-1].index("user")
    system = [message for message in messages[:last] if message.get("role") in ("system", "developer")]
    earlier = [message for message in messages[:last] if message.get("role") in ("user", "assistant")]
    own = _parts(messages[last])
    given = [_pictures(message) for message in earlier if message["role"] == "user"]
    room = limits.images - len(_pictures(messages[last]))
    if limits.history == "fold":
        old = [part for parts in given for part in parts]
        text = _as_text(earlier, limits.text // 2)
    else:
        newest = [] if _pictures(messages[last]) else [parts for parts in given if parts][-1:]
        old, text = [part for parts in newest for part in parts], ""
    content = [*old[max(0, len(old) - room) :], *([{"type": "text", "text": text}] if text else []), *own]
    return [*system, {**messages[last], "content": content}, *messages[last + 1 :]]


def _is_chat(messages: Any) -> bool:
    """Whether there are messages before the last one of the user, all in shapes that are known."""
    if not isinstance(messages, list):
        return False
    fine = all(
        isinstance(message, dict)
        and isinstance(message.get("content"), (str, list, type(None)))
        and all(isinstance(part, (str, dict)) for part in _parts(message))
        for message in messages
    )
    return fine and sum(message.get("role") in ("user", "assistant") for message in messages) > 1


def _parts(message: dict) -> list[Any]:
    content = message.get("content") or []
    return [content] if isinstance(content, str) else list(content)


def _pictures(message: dict) -> list[dict]:
    return [part for part in _parts(message) if isinstance(part, dict) and part.get("type") not in _TEXTS]


def _text(message: dict) -> str:
    texts = [part if isinstance(part, str) else part.get("text") for part in _parts(message)]
    return _DRAWN.sub("", "\n".join(text for text in texts if isinstance(text, str))).strip()


def _as_text(earlier: Sequence[dict], most: int) -> str:
    """Earlier questions and answers as text, the newest that fit into `most` characters."""
    lines: list[str] = []
    for message in reversed(earlier):
        text = _text(message)
        if message["role"] == "assistant":
            text = (tagged_answer(text) or text)[-_MOST:]
        if not text:
            continue
        line = f"Earlier {'question' if message['role'] == 'user' else 'answer'}: {text}"
        if sum(map(len, lines)) + len(line) > most:
            break
        lines.insert(0, line)
    return "\n".join(lines)
