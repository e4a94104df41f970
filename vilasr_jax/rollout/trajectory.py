"""A finished conversation: the sampled ids, and all that training and the report need."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from vilasr_jax.drawing import tagged_answer
from vilasr_jax.rollout.packed_arrays import pack_arrays, unpack_arrays


@dataclass
class Trajectory:
    """One sampled conversation.

    Attributes:
      id: unique in its run, "<row id>/<sample>".
      tokens: [t] int32, prompt, sampled and inserted tokens in order; never re-tokenised.
      loss_mask: [t] bool, True exactly where the token was sampled (<|im_end|> included).
      logprobs: [t] float32, log-probability at sampling time; 0 where not sampled.
      images: every image in index order, the base images first.
      turns: one per model turn: {"text", "calls", "error", "drawn": [1-based image indexes], "corrected"};
        and "lost", the reason, where drawing failed.
      stop_reason: the session's ("answer", "turn_limit", "image_limit", "repeat", "no_action", "truncated"),
        "token_limit" (the conversation is full), "insert_limit" (an image larger than the engine's buckets),
        "cancelled" (by a hook of the request) or "error" (the session failed).
      base_images: how many of `images` came with the question.
      images_read: how many of `images` the model was shown (one drawn in a last turn was not).
      row: {"id", "question", "answer", "question_type", "options", "data_type", "meta"} of the task row,
        "truth", the right boxes and lines where the task knows them, and "source", see `Row.source`.
      reward: parts by name; empty until scored.
    """

    id: str
    tokens: np.ndarray
    loss_mask: np.ndarray
    logprobs: np.ndarray
    images: Sequence[Image.Image]
    turns: list[dict]
    stop_reason: str
    base_images: int
    images_read: int
    row: dict
    reward: dict[str, float] = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        """What the model wrote, a string per turn."""
        return [turn["text"] for turn in self.turns]

    @property
    def answer(self) -> str | None:
        """Text of the answer tag of the last turn; None when the conversation ended without one."""
        if self.stop_reason != "answer":
            return None
        return tagged_answer(self.texts[-1])

    @property
    def drawings(self) -> int:
        """Number of turns that drew something (`rewards.Finished.drawings` counts images)."""
        return sum(bool(turn["drawn"]) for turn in self.turns)

    @property
    def corrected(self) -> int:
        """Annotations that a later turn moved."""
        return sum(turn["corrected"] for turn in self.turns)

    @property
    def errors(self) -> int:
        """Turns answered with an error text."""
        return sum(turn["error"] is not None for turn in self.turns)

    @property
    def images_in_tokens(self) -> Sequence[Image.Image]:
        """The images of the pad tokens in `tokens`: all but those drawn in a turn that ended it."""
        return self.images[: self.images_read]

    def to_bytes(self) -> bytes:
        """Serialises without loss (images as raw pixels, compressed)."""
        plain = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name not in ("tokens", "loss_mask", "logprobs", "images")
        }
        arrays = {"tokens": self.tokens, "loss_mask": self.loss_mask, "logprobs": self.logprobs}
        images = {f"image_{i}": np.asarray(image) for i, image in enumerate(self.images)}
        return pack_arrays(plain, arrays | images)

    @classmethod
    def from_bytes(cls, data: bytes) -> Trajectory:
        """Reads what `to_bytes` wrote, now or in an earlier version; DataError for anything else."""
        plain, arrays = unpack_arrays(data)
        images = [Image.fromarray(arrays.pop(f"image_{i}")) for i in range(len(arrays) - 3)]
        fields: dict[str, Any] = {**arrays, **plain}
        return cls(images=images, **fields)
