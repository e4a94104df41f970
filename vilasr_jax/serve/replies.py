"""Replies in the shape of OpenAI's chat completions.

`content` is what the model writes, turn after turn (of `NAME:answer`, the bare answer). Fields
that OpenAI does not have: `images`, the drawn images as `{"type": "image_url", "image_url": {"url": ...},
"index": k}`, and `turns`, each `{"number", "text", "calls", "error", "images": [k, ...]}`. In a stream the
deltas carry them at the end of each turn (`turn` and `images`), and the last one carries `answer`.
"""

from __future__ import annotations

import base64
import io
import time
import uuid
from collections.abc import Sequence
from typing import Any

from PIL import Image

from vilasr_jax.rollout import Trajectory
from vilasr_jax.serve.requests import ChatRequest

# The model ended by itself; everything else is a limit.
ENDED = ("answer", "no_action")
BETWEEN = "\n\n"  # between the turns of a conversation


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


class Replies:
    """Builds the replies to one request, all with one id and time."""

    def __init__(self, chat: ChatRequest):
        self.chat = chat
        self.head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": chat.model}

    def chunk(self, sample: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        """One piece of a stream."""
        choice = {"index": sample, "delta": delta, "finish_reason": finish, "logprobs": None}
        return {**self.head, "object": "chat.completion.chunk", "choices": [choice]}

    def last_chunk(self, sample: int, trajectory: Trajectory) -> dict[str, Any]:
        """The end of one sample in a stream."""
        delta = {"answer": trajectory.answer, "stop_reason": trajectory.stop_reason}
        if self.chat.answer_only:
            delta["content"] = trajectory.answer or ""
        return self.chunk(sample, delta, finish_reason(trajectory))

    def usage_chunk(self, trajectories: Sequence[Trajectory]) -> dict[str, Any]:
        """The token counts at the end of a stream, for requests with `include_usage`."""
        return {**self.head, "object": "chat.completion.chunk", "choices": [], "usage": usage(trajectories)}

    def reply(self, trajectories: Sequence[Trajectory]) -> dict[str, Any]:
        """The reply to a request without streaming."""
        choices = [self._choice(n, trajectory) for n, trajectory in enumerate(trajectories)]
        return {**self.head, "object": "chat.completion", "choices": choices, "usage": usage(trajectories)}

    def _choice(self, sample: int, trajectory: Trajectory) -> dict[str, Any]:
        text = BETWEEN.join(trajectory.texts)
        message = {
            "role": "assistant",
            "content": (trajectory.answer or "") if self.chat.answer_only else text,
            "refusal": None,
            "answer": trajectory.answer,
            "stop_reason": trajectory.stop_reason,
            "turns": [turn_record(n, turn) for n, turn in enumerate(trajectory.turns, 1)],
            "images": [
                picture(k, trajectory.images[k - 1]) for turn in trajectory.turns for k in turn["drawn"]
            ],
        }
        finish = finish_reason(trajectory)
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
