"""Batched multi-turn generation with drawing in the loop.

The slots are split into lanes. While one lane's compiled calls run on the device, the host reads another lane's
finished turns, draws, and prepares what goes into its caches next:

    lane 0   | device: insert, decode | host: draw | device: insert, decode | ...
    lane 1   | host: draw | device: insert, decode | host: draw | ...

A slot is refilled from the queue as soon as its conversation ends. The rhythm depends on nothing but the tokens, so
a run repeats exactly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from flax import nnx

from vilasr_jax.config import BucketSection, EngineSection, SamplingSection
from vilasr_jax.models.qwen2_5_vl import ModelConfig
from vilasr_jax.processing import Buckets, Tokenizer, collate
from vilasr_jax.rollout.conversation import Conversation, Incoming, Request, make_prompt
from vilasr_jax.rollout.device import Calls, NewTurn, RolloutState, Rows
from vilasr_jax.rollout.trajectory import Trajectory


@dataclass
class _Lane:
    """Some of the slots, with device state of their own."""

    state: RolloutState
    live: dict[int, Conversation] = field(default_factory=dict)  # by slot
    pending: list[tuple[int, Incoming]] = field(default_factory=list)  # replies to insert, by slot


class Engine:
    """Answers questions in conversations, many at once.

    Args:
      config: the model's.
      graphdef: from `nnx.split(model)`.
      tokenizer: the model's.
      engine, sampling, buckets: the config sections.
    """

    def __init__(
        self,
        config: ModelConfig,
        graphdef: nnx.GraphDef,
        tokenizer: Tokenizer,
        engine: EngineSection,
        sampling: SamplingSection,
        buckets: BucketSection,
    ):
        self.tokenizer, self.engine, self.sampling = tokenizer, engine, sampling
        self.prompt_buckets = Buckets(engine.prompt_tokens, engine.prompt_images, buckets.patches)
        self.insert_buckets = Buckets(engine.insert_tokens, engine.insert_images, buckets.patches)
        suppressed = np.zeros(config.vocab_size, bool)
        suppressed[tokenizer.suppressed_ids] = True
        suppressed[tokenizer.vocab_size :] = True
        special = tokenizer.special
        stop_ids = (special.im_end, special.endoftext)
        suppressed[list(stop_ids)] = False
        self.calls = Calls(
            config, graphdef, sampling, suppressed, stop_ids, engine.decode_steps, engine.stop_share
        )
        self.lane_slots = -(-engine.slots // engine.lanes)
        self.row_buckets = tuple(sorted({max(1, self.lane_slots // 8), self.lane_slots}))
        self.counters = {"sampled_tokens": 0, "prefilled_tokens": 0, "images": 0, "decode_calls": 0}

    def generate(
        self,
        params: Any,
        requests: Sequence[Request],
        key: jax.Array,
        progress: Callable[[int], None] | None = None,
    ) -> list[Trajectory]:
        """Answers every request; returns trajectories in the order of the requests and their samples.

        Args:
          params: the model's parameters (nnx state).
          requests: questions; the samples of one share their prompt's cache.
          key: a trajectory's tokens depend on this, its own seed and the parameters, not on its neighbours.
          progress: called with the number of conversations finished so far.
        """
        queue = deque((i, n) for i, request in enumerate(requests) for n in range(request.samples))
        prompts: dict[int, Incoming] = {}
        results: dict[tuple[int, int], Trajectory] = {}
        lanes = [
            _Lane(self.calls.init_state(self.lane_slots, self.sampling.max_tokens))
            for _ in range(self.engine.lanes)
        ]
        keys: dict[str, tuple[int, int]] = {}
        with ThreadPoolExecutor(self.engine.draw_workers) as pool:
            while queue or any(lane.live for lane in lanes):
                for lane in lanes:
                    for done in self._collect(lane, pool):
                        results[keys[done.id]] = done.finish()
                    if progress:
                        progress(len(results))
                    self._dispatch(lane, params, key, requests, queue, prompts, keys)
        return [results[i, n] for i, request in enumerate(requests) for n in range(request.samples)]

    # --------------------------------------------------------------------------------------------------------
    # host: read finished turns, draw, reply
    # --------------------------------------------------------------------------------------------------------

    def _collect(self, lane: _Lane, pool: ThreadPoolExecutor) -> list[Conversation]:
        """Takes the turns that have stopped; returns the conversations that are over and frees their slots."""
        if not lane.live:
            return []
        state = lane.state
        active, lengths, tokens, logprobs = jax.device_get(
            (state.active, state.turn_length, state.turn_tokens, state.turn_logprobs)
        )
        stopped = [slot for slot in sorted(lane.live) if not active[slot]]

        def answer(slot: int) -> Incoming | None:
            n = lengths[slot]
            return lane.live[slot].reply(self.tokenizer, tokens[slot, :n].copy(), logprobs[slot, :n].copy())

        over = []
        for slot, reply in zip(stopped, pool.map(answer, stopped), strict=True):
            self.counters["sampled_tokens"] += int(lengths[slot])
            if reply is None:
                over.append(lane.live.pop(slot))
            else:
                lane.pending.append((slot, reply))
        return over

    # --------------------------------------------------------------------------------------------------------
    # device: prefill, insert, decode
    # --------------------------------------------------------------------------------------------------------

    def _dispatch(self, lane: _Lane, params, key, requests, queue, prompts, keys) -> None:
        while lane.pending:
            part, lane.pending = self._take(lane.pending)
            self._insert(lane, params, key, part)
        admitted = self._admit(lane, requests, queue, prompts, keys)
        while admitted:
            part, admitted = self._take(admitted)
            self._prefill(lane, params, key, part)
        if lane.live:
            self.counters["decode_calls"] += 1
            lane.state = self.calls.decode(params, lane.state, key)

    def _take(self, items: list) -> tuple[list, list]:
        most = self.row_buckets[-1]
        return items[:most], items[most:]

    def _admit(self, lane: _Lane, requests, queue, prompts, keys) -> list[tuple[int, int]]:
        """Puts queued conversations into free slots; returns (slot, request number) pairs."""
        admitted = []
        for slot in range(self.lane_slots):
            if slot in lane.live or not queue:
                continue
            i, n = queue.popleft()
            request = requests[i]
            session = request.session()
            if (
                i not in prompts
            ):  # samples of a question come one after the other: the newest prompt is enough
                prompts.clear()
                prompts[i] = make_prompt(self.tokenizer, session)
            conversation = Conversation(
                f"{request.row['id']}/{n}",
                request.row,
                request.seed + n,
                session,
                prompts[i],
                self.sampling.max_tokens,
            )
            keys[conversation.id] = (i, n)
            lane.live[slot] = conversation
            admitted.append((slot, i))
        return admitted

    def _prefill(self, lane: _Lane, params, key, admitted: list[tuple[int, int]]) -> None:
        prompts = {i: lane.live[slot].prompt for slot, i in admitted}
        source = {i: at for at, i in enumerate(prompts)}
        turn = self._new_turn(
            list(prompts.values()),
            self._rows(len(prompts)),
            self.prompt_buckets,
        )
        rows = self._start(
            lane, [slot for slot, _ in admitted], self.lane_slots, [source[i] for _, i in admitted]
        )
        lane.state = self.calls.prefill(params, lane.state, key, turn, rows)

    def _insert(self, lane: _Lane, params, key, replies: list[tuple[int, Incoming]]) -> None:
        m = self._rows(len(replies))
        turn = self._new_turn([reply for _, reply in replies], m, self.insert_buckets)
        slots = [slot for slot, _ in replies]
        rows = self._start(lane, slots, m, list(range(len(replies))))
        lane.state = self.calls.insert(params, lane.state, key, turn, rows)

    def _rows(self, count: int) -> int:
        return next(size for size in self.row_buckets if size >= count)

    def _start(self, lane: _Lane, slots: list[int], m: int, source: list[int]) -> Rows:
        """Pads to m rows; padding goes to the slot one past the end."""
        live = [lane.live[slot] for slot in slots]

        def padded(values: Sequence[int], fill: int = 0) -> np.ndarray:
            return np.array([*values, *[fill] * (m - len(slots))], np.int32)

        return Rows(
            slots=padded(slots, self.lane_slots),
            source=padded(source),
            position=padded([c.position for c in live]),
            turn_limit=padded([min(c.room, self.sampling.max_turn_tokens) for c in live], 1),
            seed=padded([c.seed for c in live]),
        )

    def _new_turn(self, news: list[Incoming], m: int, buckets: Buckets) -> NewTurn:
        batch = collate([new.encoded for new in news], buckets=buckets, rows=m)
        starts = np.array([*(new.start for new in news), *[0] * (m - len(news))], np.int32)
        length = batch.segment_ids.sum(axis=1, dtype=np.int32)
        self.counters["prefilled_tokens"] += int(length.sum())
        self.counters["images"] += sum(len(new.encoded.images) for new in news)
        return NewTurn(
            batch.tokens, batch.positions + starts[:, None], length, batch.image_index, batch.vision
        )
