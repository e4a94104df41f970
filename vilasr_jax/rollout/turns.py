"""Reading the turns that the model has finished, and the replies of the drawing sessions."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import jax

from vilasr_jax.processing import Buckets, Tokenizer
from vilasr_jax.rollout.conversation import Conversation
from vilasr_jax.rollout.lane import Counters, Lane
from vilasr_jax.rollout.pool import DrawingPool, DrawingTask


class TurnReader:
    """The host's work between two decode calls of a lane.

    Args:
      tokenizer: the model's.
      insert_buckets: allowed lengths of a piece of a reply.
      draw_wait: seconds to wait for drawings before the lane decodes without them.
      counters: see `Engine.counters`.
    """

    def __init__(self, tokenizer: Tokenizer, insert_buckets: Buckets, draw_wait: float, counters: Counters):
        self.tokenizer, self.insert_buckets = tokenizer, insert_buckets
        self.draw_wait, self.counters = draw_wait, counters

    def collect(self, lane: Lane, pool: DrawingPool) -> list[Conversation]:
        """Reads stopped turns and finished replies; returns the conversations that ended."""
        if not lane.live:
            return []
        self._read_turns(lane, pool)
        with timed(self.counters, "waited"):
            pool.wait(lane.drawing.values(), self.draw_wait)
        for slot in [slot for slot, task in lane.drawing.items() if task.done()]:
            self._read_reply(lane, slot, lane.drawing.pop(slot), pool)
        over = [slot for slot, conversation in lane.live.items() if conversation.stop_reason]
        for slot in over:
            lane.drawing.pop(slot, None)
        return [lane.live.pop(slot) for slot in over]

    def _read_turns(self, lane: Lane, pool: DrawingPool) -> None:
        """Streams the new tokens of each turn; submits the turns that have stopped to the drawing threads."""
        state = lane.state
        active, lengths, tokens, logprobs = jax.device_get(
            (state.active, state.turn_length, state.turn_tokens, state.turn_logprobs)
        )
        for slot in sorted(lane.live.keys() - lane.drawing.keys()):
            conversation, n = lane.live[slot], lengths[slot]
            conversation.stream_text(self.tokenizer, tokens[slot, :n], not active[slot])
            if conversation.stop_reason or active[slot]:
                continue
            self.counters["sampled_tokens"] += int(n)
            work = conversation.add_turn(self.tokenizer, tokens[slot, :n].copy(), logprobs[slot, :n].copy())
            lane.drawing[slot] = pool.submit(work)

    def _read_reply(self, lane: Lane, slot: int, task: DrawingTask, pool: DrawingPool) -> None:
        """Adds a session's reply to its conversation; a failed turn is retried once, in a new session."""
        conversation = lane.live[slot]
        if error := task.exception():
            if slot in lane.failed:
                conversation.fail(lane.failed.pop(slot))
            else:
                lane.failed[slot] = error
                lane.drawing[slot] = pool.submit(conversation.retry_turn(self.tokenizer, error))
            return
        if lane.failed.pop(slot, None):
            conversation.session, reply, reply_tokens = task.result()
        else:
            reply, reply_tokens = task.result()
        if pieces := conversation.add_reply(reply, reply_tokens, self.insert_buckets):
            lane.inserts[slot] = pieces


@contextlib.contextmanager
def timed(counters: Counters, name: str) -> Iterator[None]:
    """Adds the seconds of the block to `counters[name]`."""
    began = time.monotonic()
    yield
    counters[name] += time.monotonic() - began
