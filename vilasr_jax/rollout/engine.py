"""Batched multi-turn generation with drawing in the loop.

    engine = make_engine(model, EngineSection(), SamplingSection(), patches=(256,), mesh=mesh)
    trajectories = engine.generate(params, requests, jax.random.key(0))

`model_bundle.make_engine` builds an engine for a model; `sampler.Sampler` is the shorter way from Python.

The slots are split into lanes. While one lane's compiled calls run on the device, the host reads another
lane's finished turns, draws, and prepares what goes into its caches next:

    lane 0   | device: insert, decode | host: draw | device: insert, decode | ...
    lane 1   | host: draw | device: insert, decode | host: draw | ...

A slot is refilled from the queue as soon as its conversation ends, and a row that waits for its drawing stops
no other. While no drawing needs longer than `engine.draw_wait` the schedule depends on the tokens alone,
so a run repeats bit by bit.
"""

from __future__ import annotations

import itertools
import queue
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from vilasr_jax.config import EngineSection, SamplingSection
from vilasr_jax.drawing import DrawingSession
from vilasr_jax.errors import ConfigError
from vilasr_jax.models import ModelConfig, family_of
from vilasr_jax.models.attention_backends import require_backend
from vilasr_jax.models.params import abstract
from vilasr_jax.parallel.memory import device_limit
from vilasr_jax.processing import Buckets, Tokenizer
from vilasr_jax.rollout.batch import Incoming, Shape, empty_tokens, shapes
from vilasr_jax.rollout.cache_writer import CacheWriter
from vilasr_jax.rollout.compiled_steps import CompiledSteps
from vilasr_jax.rollout.conversation import Conversation, Request, check_prompt, make_prompt
from vilasr_jax.rollout.lane import ConversationQueue, Counters, Lane, Prompt
from vilasr_jax.rollout.memory import rollout_account, rollout_memory, shard_slots
from vilasr_jax.rollout.pool import DrawingPool
from vilasr_jax.rollout.sampling_weights import SamplingLayout, SamplingWeights, WeightSource
from vilasr_jax.rollout.trajectory import Trajectory
from vilasr_jax.rollout.turns import TurnReader, timed


class Engine:
    """Answers questions in conversations, many at once.

    Args:
      config: the model's.
      graphdef: from `nnx.split(model)`.
      tokenizer: the model's.
      suppressed: [v] bool, tokens that the model may not write.
      engine, sampling: the config sections.
      patches: buckets of an image's patches.
      mesh: of the devices of all hosts: conversations are split over its data and fsdp axes, the model over
        its model axis. Of several processes each runs an engine of its own, with its part of
        `engine.slots`, on its own devices and at its own pace; `training.rollouts` divides the requests and
        gathers what all have answered.
      process: index of the host that samples; None: this process.

    Attributes:
      counters: since the engine was created: sampled_tokens; prefilled_tokens, and padded_tokens computed
        for them; images encoded; calls; decode_steps, slot_steps (each step's slots) and row_steps
        (those that sampled); waited (seconds for drawings) and drawn (seconds that the threads were busy).

    Raises:
      ConfigError: inconsistent sizes, or an attention backend that these devices do not run.
    """

    writer_class: ClassVar[type[CacheWriter]] = CacheWriter

    def __init__(
        self,
        config: ModelConfig,
        graphdef: nnx.GraphDef,
        tokenizer: Tokenizer,
        suppressed: np.ndarray,
        *,
        engine: EngineSection,
        sampling: SamplingSection,
        patches: tuple[int, ...],
        mesh: Mesh,
        process: int | None = None,
    ):
        require_backend(config.attention, mesh.devices.flat[0].platform)
        self.tokenizer, self.engine, self.sampling = tokenizer, engine, sampling
        spec = family_of(config).images
        self.prompt_buckets = Buckets(engine.prompt_tokens, engine.prompt_images, patches, spec)
        self.insert_buckets = Buckets(engine.insert_tokens, engine.insert_images, patches, spec)
        if engine.prompt_tokens[-1] > sampling.max_tokens:
            raise ConfigError(
                f"engine.prompt_tokens={engine.prompt_tokens} are more than sampling.max_tokens="
                f"{sampling.max_tokens}, the limit of a conversation"
            )
        self.layout = SamplingLayout(config, mesh, process, engine.weights)
        special = tokenizer.special
        stop_ids = (special.im_end, special.endoftext)
        self.steps = CompiledSteps(
            config,
            graphdef,
            sampling=sampling,
            suppressed=suppressed,
            stop_ids=stop_ids,
            decode_steps=engine.decode_steps,
            stop_fraction=engine.stop_fraction,
            mesh=self.layout.host,
            per_request_sampling=engine.per_request_sampling,
        )
        self.shards = self.steps.shards
        self.shard_slots = shard_slots(engine, mesh)
        self.lane_slots = self.shard_slots * self.shards
        self.counters = Counters(int)
        self.writer = self.writer_class(
            self.steps,
            self.shard_slots,
            self.prompt_buckets,
            self.insert_buckets,
            self.turn_limit,
            self.counters,
            engine.call_rows,
        )
        self.row_buckets = self.writer.row_buckets
        self.turns = TurnReader(tokenizer, self.insert_buckets, engine.draw_wait, self.counters)
        self._printed_memory = False

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
          requests: questions; a prompt is computed once for its samples. Their hooks are called.
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
        """Answers requests as they come, many at once, until None comes from the inbox; then finishes.

        Run it in a thread of its own. Answers are passed to the requests' hooks alone.

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
            if request is None:
                closed = True
                return None
            return next(numbers), request

        self._run(params, key, source, Conversation.finish)

    def warm_up(self, params: Any, progress: Callable[[int, int], None] | None = None) -> int:
        """Compiles all that conversations can need, so that nothing compiles later; returns how many calls.

        Args:
          params: the model's parameters (nnx state), or others of the same layout.
          progress: called with the calls done and their number.
        """
        self._check_memory(params)
        params, key = self.layout(params), jax.random.key(0)
        state = self.steps.init_state(self.lane_slots, self.sampling.max_tokens)
        prompt_shapes = self.prompt_shapes()
        inserts = list(shapes(self.row_buckets, self.insert_buckets))
        total = len(prompt_shapes) * (1 + len(self.row_buckets)) + len(inserts) + 1
        done = 0

        def note() -> None:
            nonlocal done
            done += 1
            if progress:
                progress(done, total)

        idle_lane = Lane(state)
        no_slots: list[list[int]] = [[] for _ in range(self.shards)]
        for shape in prompt_shapes:
            computed = self.steps.prefill(params, empty_tokens(shape, self.shards, self.prompt_buckets.spec))
            note()
            for m in self.row_buckets:
                starts = self.writer.turn_starts(idle_lane, no_slots, m, no_slots)
                state = self.steps.start(params, state, key, computed, starts)
                note()
        for shape in inserts:
            starts = self.writer.turn_starts(idle_lane, no_slots, shape.rows, no_slots)
            new = empty_tokens(shape, self.shards, self.insert_buckets.spec)
            state = self.steps.insert(params, state, key, new, starts)
            note()
        jax.block_until_ready(self.steps.decode(params, state, key))
        note()
        return done

    def prompt_shapes(self) -> list[Shape]:
        """The static shapes of all prefill calls."""
        return list(shapes(self.row_buckets, self.prompt_buckets))

    def check(self, request: Request) -> None:
        """Raises DataError, naming the row, for a prompt that does not fit the engine's buckets."""
        self.prompt(request, request.session())

    def prompt(self, request: Request, session: DrawingSession) -> Incoming:
        """The request's prompt; raises DataError as `check` does."""
        prompt = make_prompt(self.tokenizer, session)
        check_prompt(prompt, request.row, self.prompt_buckets, self.sampling.max_tokens)
        return prompt

    def _run(
        self,
        params: Any,
        key: jax.Array,
        source: Callable[[bool], tuple[int, Request] | None],
        finished: Callable[[Conversation], Any],
    ) -> None:
        """Answers the requests of `source(wait)` until it returns None and no conversation is live."""
        self._check_memory(params)
        params = self.layout(params)
        lanes = [
            Lane(self.steps.init_state(self.lane_slots, self.sampling.max_tokens))
            for _ in range(self.engine.lanes)
        ]
        waiting = ConversationQueue(source, self.prompt, self.sampling.max_tokens)
        with DrawingPool(self.engine.draw_workers, self.engine.draw_seconds) as pool:
            while True:
                for lane in lanes:
                    # Collect: the turns that the lane's last call finished, and the replies drawn since.
                    for done in self.turns.collect(lane, pool):
                        finished(done)
                    # Dispatch: the lane's next call runs on the device while the host collects other lanes.
                    self._dispatch(lane, params, key, waiting)
                # Wait: only where every live conversation waits for a drawing, or none is live.
                if any(lane.live for lane in lanes):
                    drawing = [job for lane in lanes for job in lane.drawing.values()]
                    if len(drawing) == sum(len(lane.live) for lane in lanes):
                        with timed(self.counters, "waited"):
                            pool.wait_any(drawing)
                elif not waiting.fetch(wait=True):
                    break
        for lane in lanes:
            steps, rows = np.sum(jax.device_get(lane.state.work), axis=0)
            self.counters["decode_steps"] += int(steps)
            self.counters["slot_steps"] += int(steps) * self.shard_slots
            self.counters["row_steps"] += int(rows)
        self.counters["drawn"] += pool.worked

    def load(self, weights: Any, progress: Callable[[int, int], None] | None = None) -> SamplingWeights:
        """The weights as conversations need them, once it is known that they and these fit into memory.

        Args:
          weights: stored ones (a `WeightSource`), read a layer at a time; or parameters (nnx state).
          progress: called with the bytes of a source that were read, and their number.

        Raises:
          ConfigError: it does not fit.
        """
        if isinstance(weights, WeightSource):
            self._check_memory(abstract(weights.config)[1])
            return self.layout.load(weights, progress)
        self._check_memory(weights)
        return self.layout(weights)

    def memory(self, params: Any) -> dict[str, int]:
        """Bytes on each device of all that conversations need, by name; `params` may be shapes alone."""
        return rollout_memory(self.steps, self.layout, self.engine, params)

    def _check_memory(self, params: Any) -> None:
        """Prints the memory that is needed, once; raises ConfigError where it does not fit."""
        if not self._printed_memory:
            limit = device_limit(self.steps.mesh, self.engine.memory_gib)
            account = rollout_account(self.steps, self.layout, self.engine, params, limit)
            print(account, file=sys.stderr)
            account.check()
            self._printed_memory = True

    def _dispatch(self, lane: Lane, params: Any, key: jax.Array, waiting: ConversationQueue) -> None:
        """Enqueues a lane's device work: replies, prompts of new conversations, one decode call."""
        if lane.inserts:
            self.writer.insert(lane, params, key)
        admitted: dict[int, Prompt] = {}
        for slot in range(self.lane_slots):
            if slot not in lane.live and waiting.fetch(wait=False):
                lane.live[slot], admitted[slot] = waiting.begin()
        if admitted:
            self.writer.prefill(params, admitted)
            self.writer.start(lane, params, key, admitted)
        if len(lane.live) > len(lane.drawing):
            self.counters["calls"] += 1
            lane.state = self.steps.decode(params, lane.state, key)

    def turn_limit(self, conversation: Conversation) -> int:
        """Tokens that the model may write in the turn that begins now."""
        return min(conversation.tokens_left, self.sampling.max_turn_tokens)
