"""Batched multi-turn generation with drawing in the loop.

The slots are split into lanes. While one lane's compiled calls run on the device, the host reads another
lane's finished turns, draws, and prepares what goes into its caches next:

    lane 0   | device: insert, decode | host: draw | device: insert, decode | ...
    lane 1   | host: draw | device: insert, decode | host: draw | ...

A slot is refilled from the queue as soon as its conversation ends. The rhythm depends on nothing but the
tokens, so a run repeats exactly.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from vilasr_jax.config import EngineSection, SamplingSection
from vilasr_jax.drawing import DrawingSession
from vilasr_jax.errors import ConfigError
from vilasr_jax.models.qwen2_5_vl import ModelConfig
from vilasr_jax.processing import Buckets, Encoded, Tokenizer, collate
from vilasr_jax.rollout.conversation import Conversation, Incoming, Request, check_prompt, make_prompt
from vilasr_jax.rollout.device import Calls, NewTurn, RolloutState, Rows
from vilasr_jax.rollout.pool import DrawingPool, Job
from vilasr_jax.rollout.trajectory import Trajectory


@dataclass
class _Lane:
    """Some of the slots, with device state of their own."""

    state: RolloutState
    live: dict[int, Conversation] = field(default_factory=dict)  # by slot
    drawing: dict[int, Job] = field(default_factory=dict)  # by slot: its reply is being made
    failed: dict[int, BaseException] = field(default_factory=dict)  # by slot: why it is made again
    pending: list[tuple[int, Incoming]] = field(default_factory=list)  # replies to insert, by slot


class _Queue:
    """Conversations still to be begun; requests are asked for one at a time, when there is a free slot."""

    def __init__(self, source: Callable[[bool], Request | None]):
        self.source = source
        self.request: Request | None = None
        self.number, self.sample = -1, 0
        self.prompt: Incoming | None = None

    def more(self, wait: bool) -> bool:
        """Whether there is a conversation to be begun; may wait for one."""
        while self.request is None or self.sample >= self.request.samples:
            self.request, self.sample, self.prompt = self.source(wait), 0, None
            self.number += 1
            if self.request is None:
                return False
        return True

    def take(self, engine: Engine) -> Conversation:
        """Begins it."""
        session = self.request.session()
        if self.prompt is None:
            self.prompt = engine.prompt(self.request, session)
        key = (self.number, self.sample)
        self.sample += 1
        return Conversation(key, self.request, session, self.prompt, engine.sampling.max_tokens)


class Engine:
    """Answers questions in conversations, many at once.

    Args:
      config: the model's.
      graphdef: from `nnx.split(model)`.
      tokenizer: the model's.
      suppressed: [v] bool, tokens that the model may not write.
      engine, sampling: the config sections.
      patches: buckets of an image's patches.
      mesh: conversations are split over its data and fsdp axes.

    Raises:
      ConfigError: sizes that do not fit together.
    """

    def __init__(
        self,
        config: ModelConfig,
        graphdef: nnx.GraphDef,
        tokenizer: Tokenizer,
        suppressed: np.ndarray,
        engine: EngineSection,
        sampling: SamplingSection,
        patches: tuple[int, ...],
        mesh: Mesh,
    ):
        self.tokenizer, self.engine, self.sampling = tokenizer, engine, sampling
        self.prompt_buckets = Buckets(engine.prompt_tokens, engine.prompt_images, patches)
        self.insert_buckets = Buckets(engine.insert_tokens, engine.insert_images, patches)
        if engine.prompt_tokens[-1] > sampling.max_tokens:
            raise ConfigError(
                f"engine.prompt_tokens={engine.prompt_tokens} are more than sampling.max_tokens="
                f"{sampling.max_tokens}, which a whole conversation may have"
            )
        special = tokenizer.special
        stop_ids = (special.im_end, special.endoftext)
        self.calls = Calls(
            config, graphdef, sampling, suppressed, stop_ids, engine.decode_steps, engine.stop_share, mesh,
            engine.own_sampling,
        )  # fmt: skip
        self.shards = mesh.shape["data"] * mesh.shape["fsdp"]
        self.shard_slots = -(-engine.slots // (engine.lanes * self.shards))  # of one lane
        self.lane_slots = self.shard_slots * self.shards
        self.row_buckets = tuple(sorted({max(1, self.shard_slots // 8), self.shard_slots}))  # a shard
        none = np.zeros(1, bool)
        self._filler = Incoming(Encoded(np.array([special.endoftext], np.int32), none, [], special), 0)
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
          requests: questions; the samples of one share their prompt's cache. Their hooks follow along.
          key: a trajectory's tokens depend on this, its own seed and the parameters, not on its neighbours.
          progress: called with the number of conversations finished so far.

        Raises:
          DataError: a prompt is larger than the engine's buckets.
        """
        results: dict[tuple[int, int], Trajectory] = {}

        def finished(done: Conversation) -> None:
            results[done.key] = done.finish()
            if progress:
                progress(len(results))

        source = iter(requests)
        self._run(params, key, lambda wait: next(source, None), finished)
        return [results[i, n] for i, request in enumerate(requests) for n in range(request.samples)]

    def serve(self, params: Any, inbox: queue.Queue[Request | None], key: jax.Array) -> None:
        """Answers requests as they come, many at once, until it takes None from the inbox; then finishes.

        Run it in a thread of its own. What was answered is told by the requests' hooks alone.

        Args:
          params: the model's parameters (nnx state).
          inbox: requests, each looked at with `check` before it was put in; the last is None.
          key: see `generate`.
        """
        closed = False

        def source(wait: bool) -> Request | None:
            nonlocal closed
            if closed:
                return None
            try:
                request = inbox.get(block=wait)
            except queue.Empty:
                return None
            closed = request is None
            return request

        self._run(params, key, source, Conversation.finish)

    def check(self, request: Request) -> None:
        """Raises DataError, naming the row, for a prompt that the engine has no room for."""
        self.prompt(request, request.session())

    def prompt(self, request: Request, session: DrawingSession) -> Incoming:
        """The request's prompt; raises DataError as `check` does."""
        prompt = make_prompt(self.tokenizer, session)
        check_prompt(prompt, request.row, self.prompt_buckets, self.sampling.max_tokens)
        return prompt

    def _run(self, params, key, source, finished) -> None:
        """Answers what `source(wait)` gives until it gives None when nothing else is left to do."""
        lanes = [
            _Lane(self.calls.init_state(self.lane_slots, self.sampling.max_tokens))
            for _ in range(self.engine.lanes)
        ]
        waiting = _Queue(source)
        with DrawingPool(self.engine.draw_workers, self.engine.draw_seconds) as pool:
            while True:
                for lane in lanes:
                    for done in self._collect(lane, pool):
                        finished(done)
                    self._dispatch(lane, params, key, waiting)
                if any(lane.live for lane in lanes):
                    drawing = [job for lane in lanes for job in lane.drawing.values()]
                    if len(drawing) == sum(len(lane.live) for lane in lanes):
                        pool.wait_any(drawing)
                elif not waiting.more(wait=True):
                    return

    # --------------------------------------------------------------------------------------------------------
    # host: read finished turns, draw, reply
    # --------------------------------------------------------------------------------------------------------

    def _collect(self, lane: _Lane, pool: DrawingPool) -> list[Conversation]:
        """Takes the turns that have stopped and the replies that are there; returns the conversations that
        are over, whose slots are free again."""
        if not lane.live:
            return []
        self._hear(lane, pool)
        pool.wait(lane.drawing.values(), self.engine.draw_wait)
        for slot in [slot for slot, job in lane.drawing.items() if job.done()]:
            self._follow(lane, slot, lane.drawing.pop(slot), pool)
        over = [slot for slot, conversation in lane.live.items() if conversation.stop_reason]
        for slot in over:
            lane.drawing.pop(slot, None)
        return [lane.live.pop(slot) for slot in over]

    def _hear(self, lane: _Lane, pool: DrawingPool) -> None:
        """Reads what the model has written; gives the turns that have stopped to the drawing threads."""
        state = lane.state
        active, lengths, tokens, logprobs = jax.device_get(
            (state.active, state.turn_length, state.turn_tokens, state.turn_logprobs)
        )
        for slot in sorted(lane.live.keys() - lane.drawing.keys()):
            conversation, n = lane.live[slot], lengths[slot]
            conversation.hear(self.tokenizer, tokens[slot, :n], not active[slot])
            if conversation.stop_reason or active[slot]:
                continue
            self.counters["sampled_tokens"] += int(n)
            work = conversation.take(self.tokenizer, tokens[slot, :n].copy(), logprobs[slot, :n].copy())
            lane.drawing[slot] = pool.submit(work)

    def _follow(self, lane: _Lane, slot: int, job: Job, pool: DrawingPool) -> None:
        """Takes a session's reply; if it failed, a fresh session that knows why makes another, once."""
        conversation = lane.live[slot]
        if error := job.exception():
            if slot in lane.failed:
                conversation.fail(lane.failed.pop(slot))
            else:
                lane.failed[slot] = error
                lane.drawing[slot] = pool.submit(conversation.retake(self.tokenizer, error))
            return
        reply = job.result()
        if lane.failed.pop(slot, None):
            conversation.session, *reply = reply
        new = conversation.follow(*reply, self.insert_buckets)
        if new is not None:
            lane.pending.append((slot, new))

    # --------------------------------------------------------------------------------------------------------
    # device: prefill, insert, decode
    # --------------------------------------------------------------------------------------------------------

    def _dispatch(self, lane: _Lane, params, key, waiting: _Queue) -> None:
        if lane.pending:
            self._insert(lane, params, key)
        admitted = []
        for slot in range(self.lane_slots):
            if slot not in lane.live and waiting.more(wait=False):
                lane.live[slot] = waiting.take(self)
                admitted.append(slot)
        if admitted:
            self._prefill(lane, params, key, admitted)
        if len(lane.live) > len(lane.drawing):
            self.counters["decode_calls"] += 1
            lane.state = self.calls.decode(params, lane.state, key)

    def _prefill(self, lane: _Lane, params, key, slots: list[int]) -> None:
        shards = self._by_shard(slots)
        prompts = [
            list({id(p): p for p in (lane.live[s].prompt for s in shard)}.values()) for shard in shards
        ]
        source = [
            [next(at for at, p in enumerate(own) if p is lane.live[s].prompt) for s in shard]
            for shard, own in zip(shards, prompts, strict=True)
        ]
        turn = self._new_turn(prompts, self.prompt_buckets)
        rows = self._start(lane, shards, self.shard_slots, source)
        lane.state = self.calls.prefill(params, lane.state, key, turn, rows)

    def _insert(self, lane: _Lane, params, key) -> None:
        replies, lane.pending = dict(lane.pending), []
        shards = self._by_shard(replies)
        turn = self._new_turn([[replies[s] for s in shard] for shard in shards], self.insert_buckets)
        source = [list(range(len(shard))) for shard in shards]
        rows = self._start(lane, shards, len(turn.length) // self.shards, source)
        lane.state = self.calls.insert(params, lane.state, key, turn, rows)

    def _by_shard(self, slots: Iterable[int]) -> list[list[int]]:
        shards: list[list[int]] = [[] for _ in range(self.shards)]
        for slot in slots:
            shards[slot // self.shard_slots].append(slot)
        return shards

    def _start(self, lane: _Lane, shards: list[list[int]], m: int, source: list[list[int]]) -> Rows:
        """Which slots open a turn: m rows a shard, padding at the slot one past the shard's last."""

        def padded(values: list[list], fill: int = 0, kind: type = np.int32) -> np.ndarray:
            return np.array([[*own, *[fill] * (m - len(own))] for own in values], kind).reshape(-1)

        def each(value: Callable[[Conversation], float]) -> list[list]:
            return [[value(lane.live[slot]) for slot in shard] for shard in shards]

        return Rows(
            slots=padded([[slot % self.shard_slots for slot in shard] for shard in shards], self.shard_slots),
            source=padded(source),
            position=padded(each(lambda c: c.position)),
            turn_limit=padded(each(lambda c: min(c.room, self.sampling.max_turn_tokens)), 1),
            seed=padded(each(lambda c: c.seed)),
            temperature=padded(each(lambda c: c.request.temperature), kind=np.float32),
            top_p=padded(each(lambda c: c.request.top_p), kind=np.float32),
        )

    def _new_turn(self, shards: list[list[Incoming]], buckets: Buckets) -> NewTurn:
        """Tokens and images of each shard's rows, padded to one number of rows a shard."""
        most = max(len(shard) for shard in shards)
        m = next(size for size in self.row_buckets if size >= most)
        news = [new for shard in shards for new in [*shard, *[self._filler] * (m - len(shard))]]
        batch = collate([new.encoded for new in news], buckets=buckets)
        starts = np.array([new.start for new in news], np.int32)
        length = batch.segment_ids.sum(axis=1, dtype=np.int32)
        self.counters["prefilled_tokens"] += sum(len(new.encoded.ids) for shard in shards for new in shard)
        self.counters["images"] += sum(len(new.encoded.images) for shard in shards for new in shard)
        return NewTurn(
            batch.tokens, batch.positions + starts[:, None], length, batch.image_index, batch.vision
        )
