"""The host's side of one live conversation: what was said, what was drawn, where it stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from absl import logging

from vilasr_jax.drawing import DrawingSession
from vilasr_jax.errors import DataError
from vilasr_jax.processing import (
    Buckets,
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

    key: tuple[int, int]  # number of the request, and of the sample
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
    lost_turn: dict | None = None  # a turn that the session failed on

    def __post_init__(self):
        self._add(self.prompt.encoded.ids, None)
        self.images_read = len(self.prompt.encoded.images)
        self.position = self.prompt.next_position

    @property
    def room(self) -> int:
        """Tokens that may still be sampled."""
        return self.max_tokens - self.length

    def reply(
        self, tokenizer: Tokenizer, ids: np.ndarray, logprobs: np.ndarray, buckets: Buckets
    ) -> Incoming | None:
        """Takes the model's turn; returns what enters the cache next, or None when the conversation is over.

        The last sampled token is not in the cache yet, so it leads the new tokens. Never raises: a session
        that fails, or answers with more than `buckets` hold, ends this conversation and no other.
        """
        self._add(ids, logprobs)
        last_position = self.position + len(ids) - 1
        special = tokenizer.special
        closed = int(ids[-1]) == special.im_end
        text = tokenizer.decode(ids[:-1] if ids[-1] in (special.im_end, special.endoftext) else ids)
        known = len(self.session.events)
        try:
            answer = self.session.step(text, truncated=not closed)
            if answer.done or answer.message is None:
                self.stop_reason = answer.stop_reason or "no_action"
                return None
            turn = encode_turn(tokenizer, answer.message, closed=closed)
        except Exception as error:
            logging.exception("conversation about %s: its session failed", self.row.get("id"))
            self.stop_reason = "error"
            if len(self.session.events) == known:
                line = f"{type(error).__name__}: {error}"
                self.lost_turn = {"text": text, "calls": [], "error": line, "drawn": [], "corrected": 0}
            return None
        last = Encoded(ids[-1:], np.zeros(1, bool), [], turn.special)
        if not fits(turn, buckets, extra=1):
            self.stop_reason = "insert_limit"
            return None
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
            id=f"{self.row['id']}/{self.key[1]}",
            tokens=np.concatenate(self.tokens).astype(np.int32),
            loss_mask=np.concatenate(self.mask),
            logprobs=np.concatenate(self.logprobs).astype(np.float32),
            images=list(self.session.images),
            turns=[*self.session.events, *([self.lost_turn] if self.lost_turn else [])],
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


def fits(piece: Encoded, buckets: Buckets, extra: int = 0) -> bool:
    """Whether the largest buckets hold a piece of a conversation and `extra` tokens more."""
    patches = [rows * columns for _, rows, columns in map(image_grid, piece.images)]
    return (
        len(piece.ids) + extra <= buckets.tokens[-1]
        and len(piece.images) <= buckets.images[-1]
        and max(patches, default=0) <= buckets.patches[-1]
    )


def check_prompt(prompt: Incoming, row: dict, buckets: Buckets, max_tokens: int) -> None:
    """Raises DataError, naming the row, for a prompt that the engine has no room for."""
    tokens = len(prompt.encoded.ids)
    if tokens >= max_tokens:
        raise DataError(
            f"row {row.get('id')}: its prompt has {tokens} tokens; sampling.max_tokens={max_tokens} leaves "
            "no room for an answer"
        )
    if not fits(prompt.encoded, buckets):
        grids = [image_grid(image)[1:] for image in prompt.encoded.images]
        have = f"{tokens} tokens and {len(grids)} images of {grids} patches"
        raise DataError(
            f"row {row.get('id')}: its prompt has {have}, "
            f"more than the largest buckets: prompt_tokens={buckets.tokens[-1]}, "
            f"prompt_images={buckets.images[-1]}, patches={buckets.patches[-1]}"
        )


def make_prompt(tokenizer: Tokenizer, session: DrawingSession) -> Incoming:
    """The encoded system and user messages that open a conversation."""
    return Incoming(encode_conversation(tokenizer, session.messages, add_generation_prompt=True), 0)
