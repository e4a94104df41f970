"""Writing prompts and replies into the caches: prefill, start, insert.

Host arrays are built here for `CompiledSteps`. All of this runs in the engine's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import jax
import numpy as np

from vilasr_jax.processing import Buckets
from vilasr_jax.rollout.batch import Incoming, NewTokens, new_tokens, split
from vilasr_jax.rollout.compiled_steps import CompiledSteps, TurnStarts
from vilasr_jax.rollout.conversation import Conversation
from vilasr_jax.rollout.lane import Counters, Lane, Prompt


class CacheWriter:
    """Writes new tokens into the caches of a lane's slots.

    Args:
      steps: the compiled steps.
      shard_slots: slots of one data shard in a lane.
      prompt_buckets, insert_buckets: allowed lengths of prompts, and of pieces of replies.
      turn_limit: tokens that the model may write in a conversation's next turn.
      counters: see `Engine.counters`.
      call_rows: see `EngineSection`.
    """

    def __init__(
        self,
        steps: CompiledSteps,
        shard_slots: int,
        prompt_buckets: Buckets,
        insert_buckets: Buckets,
        turn_limit: Callable[[Conversation], int],
        counters: Counters,
        call_rows: int = 0,
    ):
        self.steps, self.shard_slots, self.shards = steps, shard_slots, steps.shards
        self.prompt_buckets, self.insert_buckets = prompt_buckets, insert_buckets
        self.turn_limit, self.counters = turn_limit, counters
        self.row_buckets = row_sizes(shard_slots, call_rows)

    def prefill(self, params: Any, admitted: dict[int, Prompt]) -> None:
        """Computes the prompts of `admitted` slots that their shard has not computed yet."""
        missing: list[list[Prompt]] = []
        for number, shard in enumerate(self.by_shard(admitted)):
            unique = {id(admitted[slot]): admitted[slot] for slot in shard}.values()
            missing.append([prompt for prompt in unique if number not in prompt.computed])
        for m, parts in split([len(shard) for shard in missing], self.row_buckets):
            some = [shard[part] for shard, part in zip(missing, parts, strict=True)]
            arrays = self._new_tokens(
                [[prompt.incoming for prompt in own] for own in some], m, self.prompt_buckets
            )
            prompts = self.steps.prefill(params, arrays)
            for number, own in enumerate(some):
                for row, prompt in enumerate(own):
                    prompt.computed[number] = (prompts, row)

    def start(self, lane: Lane, params: Any, key: jax.Array, admitted: dict[int, Prompt]) -> None:
        """Copies the computed prompts to the `admitted` slots; a call reads from one `ComputedPrompts`."""
        shards, most = self.by_shard(admitted), self.row_buckets[-1]
        computed = {slot: admitted[slot].computed[n] for n, shard in enumerate(shards) for slot in shard}
        for prompts in {id(prompts): prompts for prompts, _ in computed.values()}.values():
            some = [[slot for slot in shard if computed[slot][0] is prompts] for shard in shards]
            for first in range(0, max(map(len, some)), most):
                own = [shard[first : first + most] for shard in some]
                m = next(size for size in self.row_buckets if size >= max(map(len, own)))
                source = [[computed[slot][1] for slot in shard] for shard in own]
                starts = self.turn_starts(lane, own, m, source)
                self.counters["calls"] += 1
                lane.state = self.steps.start(params, lane.state, key, prompts, starts)

    def insert(self, lane: Lane, params: Any, key: jax.Array) -> None:
        """Writes pending replies into the cache: all first pieces, then all second pieces, and so on.

        The model writes its turn after the last piece of a reply.
        """
        while replies := lane.inserts:
            lane.inserts = {slot: later for slot, (_, *later) in replies.items() if later}
            shards = self.by_shard(sorted(replies, key=lambda slot: -len(replies[slot][0].encoded.ids)))
            for m, parts in split([len(shard) for shard in shards], self.row_buckets):
                some = [shard[part] for shard, part in zip(shards, parts, strict=True)]
                new = [[replies[slot][0] for slot in own] for own in some]
                arrays = self._new_tokens(new, m, self.insert_buckets)
                starts = self.turn_starts(lane, some, m, [[] for _ in some], unfinished=lane.inserts)
                lane.state = self.steps.insert(params, lane.state, key, arrays, starts)

    def by_shard(self, slots: Iterable[int]) -> list[list[int]]:
        """The slots of each data shard, in the given order."""
        shards: list[list[int]] = [[] for _ in range(self.shards)]
        for slot in slots:
            shards[slot // self.shard_slots].append(slot)
        return shards

    def turn_starts(
        self,
        lane: Lane,
        shards: list[list[int]],
        m: int,
        source: list[list[int]],
        unfinished: Collection[int] = (),
    ) -> TurnStarts:
        """Which slots a call writes to: m rows for each shard, padded with the slot number past its last.

        Args:
          lane: of the slots.
          shards: slots by shard.
          m: rows of a shard.
          source: the row of the `ComputedPrompts` that each slot copies; empty for an insert.
          unfinished: slots whose reply has more pieces, so that the model does not write yet.
        """

        def padded(values: list[list], fill: int = 0, kind: type = np.int32) -> np.ndarray:
            return np.array([[*own, *[fill] * (m - len(own))] for own in values], kind).reshape(-1)

        def each(value: Callable[[Conversation], float]) -> list[list]:
            return [[value(lane.live[slot]) for slot in shard] for shard in shards]

        limits = [
            [0 if slot in unfinished else self.turn_limit(lane.live[slot]) for slot in shard]
            for shard in shards
        ]
        return TurnStarts(
            slots=padded([[slot % self.shard_slots for slot in shard] for shard in shards], self.shard_slots),
            source=padded(source),
            position=padded(each(lambda c: c.position)),
            turn_limit=padded(limits, 1),
            seed=padded(each(lambda c: c.seed)),
            temperature=padded(each(lambda c: c.request.temperature), kind=np.float32),
            top_p=padded(each(lambda c: c.request.top_p), kind=np.float32),
        )

    def _new_tokens(self, shards: list[list[Incoming]], m: int, buckets: Buckets) -> NewTokens:
        arrays = new_tokens(shards, m, buckets)
        every = [new for shard in shards for new in shard]
        self.counters["prefilled_tokens"] += sum(len(new.encoded.ids) for new in every)
        self.counters["images"] += sum(len(new.encoded.images) for new in every)
        self.counters["padded_tokens"] += arrays.tokens.size
        self.counters["calls"] += 1
        return arrays


def row_sizes(shard_slots: int, call_rows: int = 0) -> tuple[int, ...]:
    """Rows of a shard that a call may have.

    Args:
      shard_slots: slots of a shard in a lane.
      call_rows: see `EngineSection`.
    """
    if call_rows:
        return (min(call_rows, shard_slots),)
    return tuple(sorted({max(1, shard_slots // 8), shard_slots}))
