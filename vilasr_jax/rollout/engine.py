"""Batched multi-turn generation with drawing in the loop.

    engine = Engine(config, graphdef, tokenizer, suppressed, EngineSection(), SamplingSection(), (256,), mesh)
    trajectories = engine.generate(params, requests, jax.random.key(0))

The slots are split into lanes. While one lane's compiled calls run on the device, the host reads another
lane's finished turns, draws, and prepares what goes into its caches next:

    lane 0   | device: insert, decode | host: draw | device: insert, decode | ...
    lane 1   | host: draw | device: insert, decode | host: draw | ...

A slot is refilled from the queue as soon as its conversation ends, and a row that waits for its drawing stops
no other. While no drawing takes longer than `engine.draw_wait` the rhythm depends on nothing but the tokens,
so a run repeats bit by bit.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from vilasr_jax.config import EngineSection, SamplingSection
from vilasr_jax.drawing import DrawingSession
from vilasr_jax.errors import ConfigError
from vilasr_jax.models import ModelConfig, family_of
from vilasr_jax.models.attention_backends import require_backend
from vilasr_jax.processing import Buckets, Tokenizer
from vilasr_jax.rollout.batch import Incoming, NewTurn, Shape, empty_turn, new_turn, shapes, split
from vilasr_jax.rollout.conversation import Conversation, Request, check_prompt, make_prompt
from vilasr_jax.rollout.device import Calls, Rows
from vilasr_jax.rollout.lane import Lane, Prompt, Queue
from vilasr_jax.rollout.memory import plan_memory
from vilasr_jax.rollout.params import SamplingLayout
from vilasr_jax.rollout.pool import DrawingPool, Job
from vilasr_jax.rollout.trajectory import Trajectory


class Engine:
    """Answers questions in conversations, many at once.

    Args:
      config: the model's.
      graphdef: from `nnx.split(model)`.
      tokenizer: the model's.
      suppressed: [v] bool, tokens that the model may not write.
      engine, sampling: the config sections.
      patches: buckets of an image's patches.
      mesh: of this process's devices (`Mesh.local_mesh`): conversations are split over its data and fsdp
        axes, the model over its model axis. Of several processes each runs an engine of its own, at its own
        pace; `training.context.Context.generate` divides the requests and gathers what all have answered.

    Attributes:
      counters: since the engine was made: sampled_tokens; prefilled_tokens, and padded_tokens that the calls
        computed for them; images encoded; calls; decode_steps, slot_steps (each step's slots) and row_steps
        (those that sampled); waited (seconds for drawings) and drawn (seconds that the threads were busy).

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
        require_backend(config.attention, mesh.devices.flat[0].platform)
        self.tokenizer, self.engine, self.sampling = tokenizer, engine, sampling
        spec = family_of(config).images
        self.prompt_buckets = Buckets(engine.prompt_tokens, engine.prompt_images, patches, spec)
        self.insert_buckets = Buckets(engine.insert_tokens, engine.insert_images, patches, spec)
        if engine.prompt_tokens[-1] > sampling.max_tokens:
            raise ConfigError(
                f"engine.prompt_tokens={engine.prompt_tokens} are more than sampling.max_tokens="
                f"{sampling.max_tokens}, which a whole conversation may have"
            )
        self.layout = SamplingLayout(config, mesh)
        special = tokenizer.special
        stop_ids = (special.im_end, special.endoftext)
        self.calls = Calls(
            config,
            graphdef,
            sampling,
            suppressed,
            stop_ids,
            engine.decode_steps,
            engine.stop_share,
            mesh,
            engine.own_sampling,
        )
        self.shards = self.calls.shards
        self.shard_slots = -(-engine.slots // (engine.lanes * self.shards))  # of one lane
        self.lane_slots = self.shard_slots * self.shards
        self.row_buckets = tuple(sorted({max(1, self.shard_slots // 8), self.shard_slots}))  # a shard
        self.counters: Counter[str] = Counter()
        self._told = False

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

        waiting = iter(enumerate(requests))
        self._run(params, key, lambda wait: next(waiting, None), finished)
        return [results[i, n] for i, request in enumerate(requests) for n in range(request.samples)]

    def serve(self, params: Any, inbox: queue.Queue[Request | None], key: jax.Array) -> None:
        """Answers requests as they come, many at once, until it takes None from the inbox; then finishes.

        Run it in a thread of its own. What was answered is told by the requests' hooks alone.

        Args:
          params: the model's parameters (nnx state).
          inbox: requests, each looked at with `check` before it was put in; the last is None.
          key: see `generate`.
        """
        numbers, closed = itertools.count(), False

        def source(wait: bool) -> tuple[int, Request] | None:
            nonlocal closed
            if closed:
                return None
            try:
                request = inbox.get(block=wait)
            except queue.Empty:
                return None
            closed = request is None
            return None if closed else (next(numbers), request)

        self._run(params, key, source, Conversation.finish)

    def warm_up(self, params: Any, progress: Callable[[int, int], None] | None = None) -> int:
        """Compiles all that conversations can need, so that nothing compiles later; returns how many calls.

        Args:
          params: the model's parameters (nnx state), or others of the same layout.
          progress: called with the calls done and their number.
        """
        params, key = self.layout(params), jax.random.key(0)
        self._check_memory(params)
        state = self.calls.init_state(self.lane_slots, self.sampling.max_tokens)
        prompts = self.prompt_shapes()
        inserts = list(shapes(self.row_buckets, self.insert_buckets))
        total = len(prompts) * (1 + len(self.row_buckets)) + len(inserts) + 1
        done = 0

        def note() -> None:
            nonlocal done
            done += 1
            if progress:
                progress(done, total)

        nothing = Lane(state)
        none: list[list[int]] = [[] for _ in range(self.shards)]
        for shape in prompts:
            prefix = self.calls.prefill(params, empty_turn(shape, self.shards, self.prompt_buckets.spec))
            note()
            for m in self.row_buckets:
                rows = self._rows(nothing, none, m, none)
                state = self.calls.start(params, state, key, prefix, rows)
                note()
        for shape in inserts:
            rows = self._rows(nothing, none, shape.rows, none)
            turn = empty_turn(shape, self.shards, self.insert_buckets.spec)
            state = self.calls.insert(params, state, key, turn, rows)
            note()
        jax.block_until_ready(self.calls.decode(params, state, key))
        note()
        return done

    def prompt_shapes(self) -> list[Shape]:
        """All that prompts may need."""
        return list(shapes(self.row_buckets, self.prompt_buckets))

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
        params = self.layout(params)
        self._check_memory(params)
        lanes = [
            Lane(self.calls.init_state(self.lane_slots, self.sampling.max_tokens))
            for _ in range(self.engine.lanes)
        ]
        waiting = Queue(source, self.prompt, self.sampling.max_tokens)
        with DrawingPool(self.engine.draw_workers, self.engine.draw_seconds) as pool:
            while True:
                for lane in lanes:
                    for done in self._collect(lane, pool):
                        finished(done)
                    self._dispatch(lane, params, key, waiting)
                if any(lane.live for lane in lanes):
                    drawing = [job for lane in lanes for job in lane.drawing.values()]
                    if len(drawing) == sum(len(lane.live) for lane in lanes):
                        with self._timed("waited"):
                            pool.wait_any(drawing)
                elif not waiting.more(wait=True):
                    break
        for lane in lanes:
            steps, rows = np.sum(jax.device_get(lane.state.work), axis=0)
            self.counters.update(decode_steps=int(steps), slot_steps=int(steps) * self.shard_slots)
            self.counters["row_steps"] += int(rows)
        self.counters["drawn"] += pool.worked

    def _check_memory(self, params: Any) -> None:
        """Tells what will be taken, once; raises ConfigError for what does not fit."""
        slots = self.shard_slots * self.engine.lanes
        mesh, limit = self.calls.mesh, self.engine.memory_gib
        memory = plan_memory(self.calls.config, slots, self.sampling.max_tokens, mesh, params, limit)
        if not self._told:
            print(f"rollout: {memory}", file=sys.stderr)
            self._told = True
        memory.check()

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.counters[name] += time.monotonic() - began

    # --------------------------------------------------------------------------------------------------------
    # host: read finished turns, draw, reply
    # --------------------------------------------------------------------------------------------------------

    def _collect(self, lane: Lane, pool: DrawingPool) -> list[Conversation]:
        """Takes the turns that have stopped and the replies that are there; returns the conversations that
        are over, whose slots are free again."""
        if not lane.live:
            return []
        self._hear(lane, pool)
        with self._timed("waited"):
            pool.wait(lane.drawing.values(), self.engine.draw_wait)
        for slot in [slot for slot, job in lane.drawing.items() if job.done()]:
            self._follow(lane, slot, lane.drawing.pop(slot), pool)
        over = [slot for slot, conversation in lane.live.items() if conversation.stop_reason]
        for slot in over:
            lane.drawing.pop(slot, None)
        return [lane.live.pop(slot) for slot in over]

    def _hear(self, lane: Lane, pool: DrawingPool) -> None:
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

    def _follow(self, lane: Lane, slot: int, job: Job, pool: DrawingPool) -> None:
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
        if pieces := conversation.follow(*reply, self.insert_buckets):
            lane.pending[slot] = pieces

    # --------------------------------------------------------------------------------------------------------
    # device: prefill, insert, decode
    # --------------------------------------------------------------------------------------------------------

    def _dispatch(self, lane: Lane, params, key, waiting: Queue) -> None:
        if lane.pending:
            self._insert(lane, params, key)
        admitted: dict[int, Prompt] = {}
        for slot in range(self.lane_slots):
            if slot not in lane.live and waiting.more(wait=False):
                lane.live[slot], admitted[slot] = waiting.take()
        if admitted:
            self._prefill(params, admitted)
            self._start(lane, params, key, admitted)
        if len(lane.live) > len(lane.drawing):
            self.counters["calls"] += 1
            lane.state = self.calls.decode(params, lane.state, key)

    def _prefill(self, params, admitted: dict[int, Prompt]) -> None:
        """Reads the prompts that a shard's slots begin with and that it has not read yet."""
        missing: list[list[Prompt]] = []
        for number, shard in enumerate(self._by_shard(admitted)):
            unique = {id(admitted[slot]): admitted[slot] for slot in shard}.values()
            missing.append([prompt for prompt in unique if number not in prompt.read])
        for m, parts in split([len(shard) for shard in missing], self.row_buckets):
            some = [shard[part] for shard, part in zip(missing, parts, strict=True)]
            turn = self._new_turn([[p.new for p in own] for own in some], m, self.prompt_buckets)
            prefix = self.calls.prefill(params, turn)
            for number, own in enumerate(some):
                for row, prompt in enumerate(own):
                    prompt.read[number] = (prefix, row)

    def _start(self, lane: Lane, params, key, admitted: dict[int, Prompt]) -> None:
        """Copies what was read to the slots that begin with it, a call for each `Prefix`."""
        shards = self._by_shard(admitted)
        read = {slot: admitted[slot].read[n] for n, shard in enumerate(shards) for slot in shard}
        for prefix in {id(prefix): prefix for prefix, _ in read.values()}.values():
            some = [[slot for slot in shard if read[slot][0] is prefix] for shard in shards]
            m = next(size for size in self.row_buckets if size >= max(map(len, some)))
            rows = self._rows(lane, some, m, [[read[slot][1] for slot in shard] for shard in some])
            self.counters["calls"] += 1
            lane.state = self.calls.start(params, lane.state, key, prefix, rows)

    def _insert(self, lane: Lane, params, key) -> None:
        """Reads the replies into the cache: all first pieces, then all second ones, ...; the model writes
        after a reply's last piece."""
        while replies := lane.pending:
            lane.pending = {slot: rest for slot, (_, *rest) in replies.items() if rest}
            shards = self._by_shard(sorted(replies, key=lambda slot: -len(replies[slot][0].encoded.ids)))
            for m, parts in split([len(shard) for shard in shards], self.row_buckets):
                some = [shard[part] for shard, part in zip(shards, parts, strict=True)]
                new = [[replies[slot][0] for slot in own] for own in some]
                turn = self._new_turn(new, m, self.insert_buckets)
                rows = self._rows(lane, some, m, [[] for _ in some], unfinished=lane.pending)
                lane.state = self.calls.insert(params, lane.state, key, turn, rows)

    def _by_shard(self, slots: Iterable[int]) -> list[list[int]]:
        shards: list[list[int]] = [[] for _ in range(self.shards)]
        for slot in slots:
            shards[slot // self.shard_slots].append(slot)
        return shards

    def _rows(
        self,
        lane: Lane,
        shards: list[list[int]],
        m: int,
        source: list[list[int]],
        unfinished: Collection[int] = (),
    ) -> Rows:
        """Which slots are written to: m rows a shard, padding at the slot one past the shard's last.

        The model writes a turn in each but the `unfinished` ones, whose reply has more pieces to come.
        """

        def padded(values: list[list], fill: int = 0, kind: type = np.int32) -> np.ndarray:
            return np.array([[*own, *[fill] * (m - len(own))] for own in values], kind).reshape(-1)

        def each(value: Callable[[Conversation], float]) -> list[list]:
            return [[value(lane.live[slot]) for slot in shard] for shard in shards]

        limits = [
            [0 if slot in unfinished else self.turn_limit(lane.live[slot]) for slot in shard]
            for shard in shards
        ]
        return Rows(
            slots=padded([[slot % self.shard_slots for slot in shard] for shard in shards], self.shard_slots),
            source=padded(source),
            position=padded(each(lambda c: c.position)),
            turn_limit=padded(limits, 1),
            seed=padded(each(lambda c: c.seed)),
            temperature=padded(each(lambda c: c.request.temperature), kind=np.float32),
            top_p=padded(each(lambda c: c.request.top_p), kind=np.float32),
        )

    def turn_limit(self, conversation: Conversation) -> int:
        """Tokens that the model may write in the turn that begins now."""
        return min(conversation.room, self.sampling.max_turn_tokens)

    def _new_turn(self, shards: list[list[Incoming]], m: int, buckets: Buckets) -> NewTurn:
        turn = new_turn(shards, m, buckets)
        every = [new for shard in shards for new in shard]
        self.counters["prefilled_tokens"] += sum(len(new.encoded.ids) for new in every)
        self.counters["images"] += sum(len(new.encoded.images) for new in every)
        self.counters["padded_tokens"] += turn.tokens.size
        self.counters["calls"] += 1
        return turn
