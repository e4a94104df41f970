"""Host state of one live conversation: its tokens, its drawing session, its position."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from absl import logging
from PIL import Image

from vilasr_jax.drawing import DrawingSession, Reply
from vilasr_jax.errors import DataError
from vilasr_jax.processing import Buckets, Encoded, Tokenizer, encode_conversation, encode_turn, join
from vilasr_jax.rollout.batch import Incoming
from vilasr_jax.rollout.trajectory import Trajectory


class Cancelled(Exception):
    """Raised by a hook whose conversation nobody waits for; unlike a fault of a hook it isn't logged."""


@dataclass
class Request:
    """One question to be answered `samples` times.

    The hooks stream a conversation to a terminal, notebook or server. They are called in the engine's thread
    and should be quick (put the arguments in a queue); one that raises cancels its conversation.

    Attributes:
      row: the task row's plain fields (see `Trajectory.row`).
      session: makes a fresh `DrawingSession`, one per sample; two calls must give equal ones.
      seed: the first of `samples` consecutive random streams.
      temperature, top_p: used with `EngineSection.per_request_sampling`, instead of the engine's.
      max_new_tokens: sampled tokens of the conversation; None: only the engine's limits.
      on_tokens: `(sample, text)`: the piece of text that the model has just written. The pieces of a turn,
        joined, are the turn's text; there is one per decode call, never cut inside a character.
      on_turn: `(sample, turn, images)`: a turn is over and its calls are drawn. `turn` is the
        session's event (see `Trajectory.turns`), `images` the new images, numbered by `turn["drawn"]`.
      on_end: `(sample, trajectory)`: the conversation is over.
    """

    row: dict
    session: Callable[[], Any]
    seed: int
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int | None = None
    on_tokens: Callable[[int, str], Any] | None = None
    on_turn: Callable[[int, dict, list[Image.Image]], Any] | None = None
    on_end: Callable[[int, Trajectory], Any] | None = None


@dataclass
class Conversation:
    """Accumulates a trajectory, turn by turn.

    A turn goes `add_turn` (in the engine's thread), then the function it returned (in a drawing thread), then
    `add_reply` (in the engine's thread again).
    """

    key: tuple[int, int]  # number of the request, and of the sample
    request: Request
    session: DrawingSession
    prompt: Incoming
    max_tokens: int
    tokens: list[np.ndarray] = field(default_factory=list)
    loss_mask: list[np.ndarray] = field(default_factory=list)
    logprobs: list[np.ndarray] = field(default_factory=list)
    said: list[dict] = field(default_factory=list)  # arguments of `session.step`, one per turn
    length: int = 0
    sampled: int = 0
    images_read: int = 0
    position: int = 0  # M-RoPE position of the next sampled token
    stop_reason: str | None = None
    lost_turn: dict | None = None  # a turn that the session failed on
    prompt_turns: int = 0  # number of the session's turns that are part of the prompt
    base_images: int = 0  # number of the question's images
    streamed: str = ""  # text of the current turn that `on_tokens` got

    def __post_init__(self):
        self._add(self.prompt.encoded.ids, None)
        self.images_read = len(self.prompt.encoded.images)
        self.prompt_turns = len(self.session.events)
        drawn = sum(len(event["drawn"]) for event in self.session.events)
        self.base_images = self.images_read - drawn
        self.position = self.prompt.next_position

    @property
    def seed(self) -> int:
        """Seed of the sample's random stream."""
        return self.request.seed + self.key[1]

    @property
    def tokens_left(self) -> int:
        """Tokens that may still be sampled."""
        room, most = self.max_tokens - self.length, self.request.max_new_tokens
        return room if most is None else min(room, most - self.sampled)

    def stream_text(self, tokenizer: Tokenizer, ids: np.ndarray, over: bool) -> None:
        """Streams the new text of a turn to `on_tokens`; cancels the conversation if the hook raises."""
        if self.request.on_tokens is None:
            return
        text = tokenizer.decode(_without_stop_token(ids, tokenizer))
        if not over:
            text = text.rstrip("\ufffd")  # perhaps the first bytes of a character
        if len(text) > len(self.streamed) and text.startswith(self.streamed):
            new, self.streamed = text[len(self.streamed) :], text
            self._call(self.request.on_tokens, new)

    def add_turn(
        self, tokenizer: Tokenizer, ids: np.ndarray, logprobs: np.ndarray
    ) -> Callable[[], tuple[Reply, Encoded | None]]:
        """Adds the model's turn; returns the work of a drawing thread: the reply, and its tokens."""
        self._add(ids, logprobs)
        self.position += len(ids) - 1  # of the last sampled token: its key and value are not in the cache yet
        self.streamed = ""
        closed = int(ids[-1]) == tokenizer.special.im_end
        self.said.append(
            {"text": tokenizer.decode(_without_stop_token(ids, tokenizer)), "truncated": not closed}
        )
        return partial(_reply, self.session, tokenizer, closed, self.said[-1])

    def retry_turn(
        self, tokenizer: Tokenizer, error: BaseException
    ) -> Callable[[], tuple[Any, Reply, Encoded | None]]:
        """After a failure: replays all turns in a new session, the last with the reason of the failure."""
        closed = not self.said[-1]["truncated"]
        self.said[-1]["lost"] = f"the drawing failed ({_line(error)})"
        return partial(_retry, self.request.session, tokenizer, closed, list(self.said))

    def add_reply(self, reply: Reply, reply_tokens: Encoded | None, buckets: Buckets) -> list[Incoming]:
        """Adds the session's reply; returns what enters the cache next, in pieces that fit `buckets`.

        The last sampled token is not in the cache yet, so it leads the new tokens. Empty: the conversation is
        over, and `stop_reason` says why.
        """
        if self.request.on_turn is not None:
            event = self.session.events[-1]
            self._call(self.request.on_turn, event, [self.session.images[i - 1] for i in event["drawn"]])
            if self.stop_reason:
                return []
        if reply_tokens is None:
            self.stop_reason = reply.stop_reason or "no_action"
            return []
        last = Encoded(self.tokens[-1][-1:], np.zeros(1, bool), [], reply_tokens.special)
        try:
            pieces = Incoming(join([last, reply_tokens]), self.position).pieces(buckets)
        except DataError:
            self.stop_reason = "insert_limit"
            return []
        if self.max_tokens - self.length <= len(reply_tokens.ids) or self.tokens_left < 1:
            self.stop_reason = "token_limit"
            return []
        self._add(reply_tokens.ids, None)
        self.images_read += len(reply_tokens.images)
        self.position = pieces[-1].next_position
        return pieces

    def fail(self, error: BaseException) -> None:
        """Ends the conversation: its session failed twice."""
        logging.error("conversation about %s: its session failed: %s", self.request.row.get("id"), error)
        self.stop_reason = "error"
        if len(self.session.events) < self.prompt_turns + len(self.said):
            text = self.said[-1]["text"]
            line = f"{type(error).__name__}: {error}"
            self.lost_turn = {"text": text, "calls": [], "error": line, "drawn": [], "corrected": 0}

    def finish(self) -> Trajectory:
        """The conversation as a `Trajectory`."""
        trajectory = Trajectory(
            id=f"{self.request.row['id']}/{self.key[1]}",
            tokens=np.concatenate(self.tokens).astype(np.int32),
            loss_mask=np.concatenate(self.loss_mask),
            logprobs=np.concatenate(self.logprobs).astype(np.float32),
            images=list(self.session.images),
            turns=[*self.session.events, *([self.lost_turn] if self.lost_turn else [])],
            stop_reason=self.stop_reason or "unfinished",
            base_images=self.base_images,
            images_read=self.images_read,
            row=self.request.row,
        )
        if self.request.on_end is not None:
            self._call(self.request.on_end, trajectory)
        return trajectory

    def _call(self, hook: Callable, *arguments: Any) -> None:
        try:
            hook(self.key[1], *arguments)
        except Exception as error:
            if not isinstance(error, Cancelled):
                row = self.request.row.get("id")
                logging.warning("conversation about %s is cancelled, as its hook failed: %s", row, error)
            self.stop_reason = "cancelled"

    def _add(self, ids: np.ndarray, logprobs: np.ndarray | None) -> None:
        self.tokens.append(ids)
        self.loss_mask.append(np.full(len(ids), logprobs is not None))
        self.logprobs.append(np.zeros(len(ids), np.float32) if logprobs is None else logprobs)
        self.length += len(ids)
        self.sampled += 0 if logprobs is None else len(ids)


def _without_stop_token(ids: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """The tokens of a turn without the one that ended it."""
    special = tokenizer.special
    return ids[:-1] if len(ids) and ids[-1] in (special.im_end, special.endoftext) else ids


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _reply(session, tokenizer: Tokenizer, closed: bool, said: dict) -> tuple[Reply, Encoded | None]:
    reply = session.step(**said)
    if reply.done or reply.message is None:
        return reply, None
    return reply, encode_turn(tokenizer, reply.message, closed=closed)


def _retry(
    make: Callable[[], Any], tokenizer: Tokenizer, closed: bool, said: list[dict]
) -> tuple[Any, Reply, Encoded | None]:
    session = make()
    for turn in said[:-1]:
        session.step(**turn)
    return session, *_reply(session, tokenizer, closed, said[-1])


def fits(piece: Incoming, buckets: Buckets) -> bool:
    """Whether the largest buckets hold a piece of a conversation."""
    patches = [rows * columns for _, rows, columns in piece.grids]
    return (
        len(piece.encoded.ids) <= buckets.tokens[-1]
        and len(patches) <= buckets.images[-1]
        and max(patches, default=0) <= buckets.patches[-1]
    )


def check_prompt(prompt: Incoming, row: dict, buckets: Buckets, max_tokens: int) -> None:
    """Raises DataError, naming the row, for a prompt that does not fit."""
    tokens = len(prompt.encoded.ids)
    if tokens >= max_tokens:
        raise DataError(
            f"row {row.get('id')}: its prompt has {tokens} tokens; sampling.max_tokens={max_tokens} leaves "
            "no room for an answer"
        )
    if not fits(prompt, buckets):
        grids = [grid[1:] for grid in prompt.grids]
        have = f"{tokens} tokens and {len(grids)} images of {grids} patches"
        raise DataError(
            f"row {row.get('id')}: its prompt has {have}, "
            f"more than the largest buckets: prompt_tokens={buckets.tokens[-1]}, "
            f"prompt_images={buckets.images[-1]}, patches={buckets.patches[-1]}"
        )


def make_prompt(tokenizer: Tokenizer, session: DrawingSession) -> Incoming:
    """The encoded system and user messages that open a conversation."""
    return Incoming(encode_conversation(tokenizer, session.messages, add_generation_prompt=True), 0)
