"""Replies in the shape of OpenAI's chat completions.

`content` is what the model writes, turn after turn; of `NAME:answer` the bare answer, of `NAME:markdown`
thoughts, drawn pictures and the answer as Markdown. Fields that OpenAI does not have: `images`, the drawn
images as `{"type": "image_url", "image_url": {"url": ...}, "index": k}`, and `turns`, each
`{"number", "text", "calls", "error", "images": [k, ...]}`. In a stream the deltas carry them at the end of
each turn (`turn` and `images`; not of Markdown, which has the pictures in it), and the last one carries
`answer`.
"""

from __future__ import annotations

import base64
import io
import re
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from vilasr_jax.rollout import Trajectory
from vilasr_jax.serve.requests import ChatRequest

# The model ended by itself; everything else is a limit.
ENDED = ("answer", "no_action")
BETWEEN = "\n\n"  # between the turns of a conversation
_THOUGHT = re.compile(r"<think>(.*?)</think>", re.DOTALL)


def data_url(image: Image.Image) -> str:
    """The image as a PNG data URL."""
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=3)
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def picture(index: int, image: Image.Image) -> dict[str, Any]:
    """One drawn image; `index` is its number in the conversation, from 1, the given ones first."""
    return {"type": "image_url", "image_url": {"url": data_url(image)}, "index": index}


def turn_record(number: int, turn: dict) -> dict[str, Any]:
    """A turn as clients see it."""
    return {
        "number": number,
        "text": turn["text"],
        "calls": turn["calls"],
        "error": turn["error"],
        "images": list(turn["drawn"]),
    }


def turn_markdown(turn: dict, pictures: Sequence[dict[str, Any]]) -> str:
    """A turn as Markdown: the thought, the drawn pictures as data URLs, and the error."""
    thought = _THOUGHT.search(turn["text"])
    parts = [thought[1].strip() if thought else turn["text"].strip()]
    parts += [f"![picture {one['index']}]({one['image_url']['url']})" for one in pictures]
    parts += [f"*{turn['error']}*"] if turn["error"] else []
    return BETWEEN.join(filter(None, parts))


class Replies:
    """Builds the replies to one request, all with one id and time.

    Args:
      chat: the request.
      cut: shortens a text to a number of tokens.
    """

    def __init__(self, chat: ChatRequest, cut: Callable[[str, int], str]):
        self.chat, self.cut = chat, cut
        self.head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": chat.model}

    def chunk(self, sample: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        """One piece of a stream."""
        choice = {"index": sample, "delta": delta, "finish_reason": finish, "logprobs": None}
        return {**self.head, "object": "chat.completion.chunk", "choices": [choice]}

    def last_chunk(self, sample: int, trajectory: Trajectory) -> dict[str, Any]:
        """The end of one sample in a stream."""
        delta = {"answer": trajectory.answer, "stop_reason": trajectory.stop_reason}
        if self.chat.answer_only:
            delta["content"] = self._answer(trajectory)
        elif self.chat.markdown:
            delta["content"] = BETWEEN + self._bold_answer(trajectory)
        return self.chunk(sample, delta, self._finish_reason(trajectory))

    def usage_chunk(self, trajectories: Sequence[Trajectory]) -> dict[str, Any]:
        """The token counts at the end of a stream, for requests with `include_usage`."""
        return {**self.head, "object": "chat.completion.chunk", "choices": [], "usage": usage(trajectories)}

    def reply(self, trajectories: Sequence[Trajectory]) -> dict[str, Any]:
        """The reply to a request without streaming."""
        choices = [self._choice(n, trajectory) for n, trajectory in enumerate(trajectories)]
        return {**self.head, "object": "chat.completion", "choices": choices, "usage": usage(trajectories)}

    def _answer(self, trajectory: Trajectory) -> str:
        """The bare answer, of at most `max_tokens` tokens."""
        answer = trajectory.answer or ""
        return self.cut(answer, self.chat.max_tokens) if self.chat.max_tokens else answer

    def _bold_answer(self, trajectory: Trajectory) -> str:
        return f"**{trajectory.answer}**" if trajectory.answer else f"*no answer ({trajectory.stop_reason})*"

    def _finish_reason(self, trajectory: Trajectory) -> str:
        if self.chat.answer_only and self._answer(trajectory) != (trajectory.answer or ""):
            return "length"
        return finish_reason(trajectory)

    def _content(self, trajectory: Trajectory) -> str:
        if self.chat.answer_only:
            return self._answer(trajectory)
        if not self.chat.markdown:
            return BETWEEN.join(trajectory.texts)
        turns = [
            turn_markdown(turn, [picture(k, trajectory.images[k - 1]) for k in turn["drawn"]])
            for turn in trajectory.turns
        ]
        return BETWEEN.join([*turns, self._bold_answer(trajectory)])

    def _choice(self, sample: int, trajectory: Trajectory) -> dict[str, Any]:
        message = {
            "role": "assistant",
            "content": self._content(trajectory),
            "refusal": None,
            "answer": trajectory.answer,
            "stop_reason": trajectory.stop_reason,
            "turns": [turn_record(n, turn) for n, turn in enumerate(trajectory.turns, 1)],
            "images": [
                picture(k, trajectory.images[k - 1]) for turn in trajectory.turns for k in turn["drawn"]
            ],
        }
        finish = self._finish_reason(trajectory)
        return {"index": sample, "message": message, "finish_reason": finish, "logprobs": None}


def finish_reason(trajectory: Trajectory) -> str:
    """ "stop" when the model ended by itself, else "length"."""
    return "stop" if trajectory.stop_reason in ENDED else "length"


def usage(trajectories: Sequence[Trajectory]) -> dict[str, int]:
    """Counts prompt tokens (the prompt once, and each conversation's later insertions) and sampled tokens."""
    sampled = sum(int(t.loss_mask.sum()) for t in trajectories)
    prompts = [int(t.loss_mask.argmax()) if t.loss_mask.any() else len(t.tokens) for t in trajectories]
    given = sum(len(t.tokens) for t in trajectories) - sampled - sum(prompts) + max(prompts, default=0)
    return {"prompt_tokens": given, "completion_tokens": sampled, "total_tokens": given + sampled}
