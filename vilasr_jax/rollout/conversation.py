"""The host's side of one live conversation: what was said, what was drawn, where it stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from vilasr_jax.drawing import DrawingSession
from vilasr_jax.processing import (
    Encoded,
    Tokenizer,
    encode_conversation,
    encode_turn,
    image_grid,
    join,
    mrope_positions,
)
from vilasr_jax.rollout.trajectory import Trajectory


@dataclass
class Request:
    """One question to be answered `samples` times.

    Attributes:
      row: the task row's plain fields (see `Trajectory.row`).
      session: makes a fresh `DrawingSession`, one a sample.
      seed: the first of `samples` consecutive random streams.
    """

    row: dict
    session: Any
    seed: int
    samples: int = 1


@dataclass(frozen=True)
class Incoming:
    """Tokens about to enter a cache, the first of them at M-RoPE position `start`."""

    encoded: Encoded
    start: int

    @cached_property
    def next_position(self) -> int:
        """The M-RoPE position after the last token."""
        grids = [image_grid(image) for image in self.encoded.images]
        return mrope_positions(self.encoded.ids, grids, self.encoded.special, start=self.start)[1]


@dataclass
class Conversation:
    """Accumulates a trajectory, turn by turn."""

    id: str
    row: dict
    seed: int
    session: DrawingSession
    prompt: Incoming
    max_tokens: int
    tokens: list[np.ndarray] = field(default_factory=list)
    mask: list[np.ndarray] = field(default_factory=list)
    logprobs: list[np.ndarray] = field(default_factory=list)
    length: int = 0
    images_read: int = 0
    position: int = 0  # of the next token to be sampled
    stop_reason: str | None = None

    def __post_init__(self):
        self._add(self.prompt.encoded.ids, None)
        self.images_read = len(self.prompt.encoded.images)
        self.position = self.prompt.next_position

    @property
    def room(self) -> int:
        """Tokens that may still be sampled."""
        return self.max_tokens - self.length

    def reply(self, tokenizer: Tokenizer, ids: np.ndarray, logprobs: np.ndarray) -> Incoming | None:
        """Takes the model's turn; returns what enters the cache next, or None when the conversation is over.

        The last sampled token is not in the cache yet, so it leads the new tokens.
        """
        self._add(ids, logprobs)
        last_position = self.position + len(ids) - 1
        closed = int(ids[-1]) == tokenizer.special.im_end
        text = tokenizer.decode(ids[:-1] if closed else ids)
        answer = self.session.step(text, truncated=not closed)
        if answer.done or answer.message is None:
            self.stop_reason = answer.stop_reason or "no_action"
            return None
        turn = encode_turn(tokenizer, answer.message, closed=closed)
        last = Encoded(ids[-1:], np.zeros(1, bool), [], turn.special)
        new = Incoming(join([last, turn]), last_position)
        if self.room <= len(turn.ids):
            self.stop_reason = "token_limit"
            return None
        self._add(turn.ids, None)
        self.images_read += len(turn.images)
        self.position = new.next_position
        return new

    def finish(self) -> Trajectory:
        """The conversation as a `Trajectory`."""
        return Trajectory(
            id=self.id,
            tokens=np.concatenate(self.tokens).astype(np.int32),
            loss_mask=np.concatenate(self.mask),
            logprobs=np.concatenate(self.logprobs).astype(np.float32),
            images=list(self.session.images),
            turns=list(self.session.events),
            stop_reason=self.stop_reason or "unfinished",
            base_images=len(self.prompt.encoded.images),
            images_read=self.images_read,
            row=self.row,
        )

    def _add(self, ids: np.ndarray, logprobs: np.ndarray | None) -> None:
        self.tokens.append(ids)
        self.mask.append(np.full(len(ids), logprobs is not None))
        self.logprobs.append(np.zeros(len(ids), np.float32) if logprobs is None else logprobs)
        self.length += len(ids)


def make_prompt(tokenizer: Tokenizer, session: DrawingSession) -> Incoming:
    """The encoded system and user messages that open a conversation."""
    return Incoming(encode_conversation(tokenizer, session.messages, add_generation_prompt=True), 0)
