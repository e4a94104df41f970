"""A rollout on simulated clocks: when each host's engine computes, draws, and waits.

Each host has two clocks, that of the engine's thread and that of its devices, which run one call at a time.
The schedule is `rollout.engine`'s: lanes in turn, first the turns that a lane has finished and their replies,
then its next calls. No array is computed; how long a call needs is given.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from vilasr_jax.plan.simulation.host_costs import HostCosts
from vilasr_jax.plan.simulation.lengths import Lengths, Turn
from vilasr_jax.processing import Buckets
from vilasr_jax.processing.vision_rows import first_fit
from vilasr_jax.rollout.batch import split, vision_rows
from vilasr_jax.rollout.cache_writer import row_sizes

DECODE, PREFILL, DRAWING, HOST = "decode", "prefill and insert", "drawing", "host"
Piece = tuple[int, int]  # tokens and images that enter a cache in one call


class Calls(Protocol):
    """Seconds of the compiled calls; rows, tokens and vision rows are those of a shard."""

    decode: float  # one token of each slot
    start: float

    def prefill(self, rows: int, tokens: int, images: int) -> float:
        """Computes prompts."""

    def insert(self, rows: int, tokens: int, images: int) -> float:
        """Writes replies into the cache."""


@dataclasses.dataclass(frozen=True)
class EngineShape:
    """An engine of one host."""

    shards: int  # of the host
    slots: int  # of a shard in a lane
    lanes: int
    decode_steps: int
    stop_fraction: float
    draw_wait: float
    threads: int  # drawings that run at once
    prompts: Buckets
    inserts: Buckets
    patches: int  # of an image
    call_rows: int = 0  # see `EngineSection`


@dataclasses.dataclass
class HostTime:
    """Where the seconds of a host's devices are; `parts` sum up to `seconds`."""

    seconds: float = 0.0
    parts: dict[str, float] = dataclasses.field(
        default_factory=lambda: dict.fromkeys((DECODE, PREFILL, DRAWING, HOST), 0.0)
    )
    decode_steps: int = 0
    prefills: int = 0  # calls
    sampled: int = 0  # tokens
    conversations: int = 0


Queue = deque[tuple[int, Lengths]]  # number of the question, and a conversation about it


@dataclasses.dataclass
class _Row:
    """A live conversation."""

    question: int
    lengths: Lengths
    turn: int = 0
    left: int = 0  # tokens of the turn that are not sampled yet

    @property
    def current(self) -> Turn:
        return self.lengths.turns[self.turn]


@dataclasses.dataclass
class _Lane:
    rows: dict[int, _Row] = dataclasses.field(default_factory=dict)  # by slot
    drawing: dict[int, tuple[float, float]] = dataclasses.field(default_factory=dict)  # submitted, finished
    inserts: dict[int, list[Piece]] = dataclasses.field(default_factory=dict)
    done: float = 0.0  # when its last call ends


class SimulatedHost:
    """An engine that answers the conversations of a queue, which several hosts may read."""

    def __init__(self, engine: EngineShape, calls: Calls, costs: HostCosts, queue: Queue):
        self.engine, self.calls, self.costs, self.queue = engine, calls, costs, queue
        self.clock = self.device = 0.0  # of the engine's thread; when the devices are free
        self.waits: list[tuple[float, float]] = []  # for drawings, since the last call
        self.threads = [0.0] * engine.threads  # when each is free
        self.computed: dict[tuple[int, int], int] = {}  # by question and shard: the call that computed it
        self.lanes = [_Lane() for _ in range(engine.lanes)]
        self.row_sizes = row_sizes(engine.slots, engine.call_rows)
        self.time = HostTime()

    def run(self) -> Iterator[float]:
        """Yields its clock whenever it is about to read the queue; see `HostTime` for the outcome."""
        while True:
            for lane in self.lanes:
                self._collect(lane)
                yield self.clock
                self._dispatch(lane)
            drawing = [finish for lane in self.lanes for _, finish in lane.drawing.values()]
            live = sum(len(lane.rows) for lane in self.lanes)
            if live and len(drawing) == live:
                self._wait(min(drawing))
            elif not live and not self.queue:
                break
        self._idle()
        self.time.seconds = self.clock

    def _collect(self, lane: _Lane) -> None:
        if not lane.rows:
            return
        self.clock = max(self.clock, lane.done)
        for slot in sorted(lane.rows.keys() - lane.drawing.keys()):
            row = lane.rows[slot]
            if not row.left:
                self.clock += self.costs.encoding(row.current.tokens)
                lane.drawing[slot] = (self.clock, self._draw(row.current))
        if lane.drawing:
            wait = self.engine.draw_wait
            self._wait(max(min(finish, begun + wait) for begun, finish in lane.drawing.values()))
        for slot in [slot for slot, (_, finish) in lane.drawing.items() if finish <= self.clock]:
            del lane.drawing[slot]
            row = lane.rows[slot]
            if row.turn + 1 == len(row.lengths.turns):
                del lane.rows[slot]
                self.time.conversations += 1
            else:
                lane.inserts[slot] = pieces(row.current, self.engine.inserts)

    def _draw(self, turn: Turn) -> float:
        """When a drawing thread has finished a turn that is submitted now."""
        begun = max(self.clock, heapq.heappop(self.threads))
        finish = begun + self.costs.drawing(turn.images) + self.costs.encoding(turn.reply)
        heapq.heappush(self.threads, finish)
        return finish

    def _wait(self, until: float) -> None:
        if until > self.clock:
            self.waits.append((self.clock, until))
            self.clock = until

    def _dispatch(self, lane: _Lane) -> None:
        self._insert(lane)
        self._admit(lane)
        if len(lane.rows) > len(lane.drawing):
            steps = max(self._advance(lane, shard) for shard in self._by_shard(lane.rows))
            self.time.decode_steps += steps
            self._call(lane, DECODE, steps * self.calls.decode)

    def _advance(self, lane: _Lane, slots: list[int]) -> int:
        """Decodes on a shard until enough rows have stopped; returns the steps."""
        left = sorted(lane.rows[slot].left for slot in slots if lane.rows[slot].left)
        if not left:
            return 0
        least = math.floor(round((1 - self.engine.stop_fraction) * len(left), 6))  # as float32 has it
        steps = min(self.engine.decode_steps, left[max(len(left) - least - 1, 0)])
        for slot in slots:
            lane.rows[slot].left -= min(lane.rows[slot].left, steps)
        return steps

    def _insert(self, lane: _Lane) -> None:
        while replies := lane.inserts:
            lane.inserts = {slot: later for slot, (_, *later) in replies.items() if later}
            order = sorted(replies, key=lambda slot: -replies[slot][0][0])
            shards = [[replies[slot][0] for slot in shard] for shard in self._by_shard(order)]
            for rows, parts in split([len(shard) for shard in shards], self.row_sizes):
                some = [shard[part] for shard, part in zip(shards, parts, strict=True)]
                sizes = self._build(some, rows, self.engine.inserts)
                self._call(lane, PREFILL, self.calls.insert(rows, *sizes))
            for slot in replies.keys() - lane.inserts.keys():
                row = lane.rows[slot]
                row.turn += 1
                self._open(row)

    def _admit(self, lane: _Lane) -> None:
        admitted: dict[int, _Row] = {}
        for slot in range(self.engine.slots * self.engine.shards):
            if slot not in lane.rows and self.queue:
                lane.rows[slot] = admitted[slot] = _Row(*self.queue.popleft())
        if not admitted:
            return
        shards = self._by_shard(admitted)
        missing: list[list[int]] = []  # questions of each shard
        prompts = {row.question: row.lengths for row in admitted.values()}
        for number, shard in enumerate(shards):
            questions = dict.fromkeys(admitted[slot].question for slot in shard)
            missing.append([one for one in questions if (one, number) not in self.computed])
        self.clock += sum(self.costs.encoding(prompts[one].prompt) for one in set().union(*missing))
        for rows, parts in split([len(shard) for shard in missing], self.row_sizes):
            some = [shard[part] for shard, part in zip(missing, parts, strict=True)]
            self.computed |= {(one, n): self.time.prefills for n, own in enumerate(some) for one in own}
            self.time.prefills += 1
            new = [[(prompts[one].prompt, prompts[one].images) for one in own] for own in some]
            self._call(lane, PREFILL, self.calls.prefill(rows, *self._build(new, rows, self.engine.prompts)))
        source = [[self.computed[admitted[slot].question, n] for slot in own] for n, own in enumerate(shards)]
        for prefill in set().union(*source):
            slots = max(own.count(prefill) for own in source)
            for _ in range(-(-slots // self.row_sizes[-1])):
                self._call(lane, PREFILL, self.calls.start)
        for row in admitted.values():
            self._open(row)

    def _open(self, row: _Row) -> None:
        """A turn begins: its first token is sampled by the call that precedes it."""
        row.left = row.current.tokens - 1
        self.time.sampled += row.current.tokens

    def _build(self, shards: Sequence[Sequence[Piece]], rows: int, buckets: Buckets) -> tuple[int, int]:
        """Tokens and vision rows of a call, after the thread has written its arrays."""
        tokens = buckets.fit("tokens", max(size for shard in shards for size, _ in shard))
        patches = buckets.fit("patches", self.engine.patches)
        most = 0
        for shard in shards:
            count = sum(images for _, images in shard)
            self.clock += self.costs.patching(count) + self.costs.writing(sum(size for size, _ in shard))
            placed = first_fit([self.engine.patches] * count, [], patches)
            assert placed is not None, "an image fits its bucket"
            most = max(most, len(placed[1]))
        return tokens, next(size for size in vision_rows(rows, buckets) if size >= most)

    def _by_shard(self, slots: Iterable[int]) -> list[list[int]]:
        """The slots of each shard, in the given order."""
        found: list[list[int]] = [[] for _ in range(self.engine.shards)]
        for slot in slots:
            found[slot // self.engine.slots].append(slot)
        return found

    def _call(self, lane: _Lane, kind: str, seconds: float) -> None:
        """The devices run a call, as soon as it is dispatched and they are free."""
        self.clock += self.costs.call_ms / 1000
        self._idle()
        self.device = max(self.device, self.clock) + seconds
        self.time.parts[kind] += seconds
        lane.done = self.device

    def _idle(self) -> None:
        """Counts the time that the devices have been free until now."""
        gap = max(self.clock - self.device, 0.0)
        waited = sum(max(end - max(begin, self.device), 0.0) for begin, end in self.waits)
        self.time.parts[DRAWING] += min(waited, gap)
        self.time.parts[HOST] += gap - min(waited, gap)
        self.waits = []


def pieces(turn: Turn, buckets: Buckets) -> list[Piece]:
    """A reply in pieces that the largest buckets hold: its tokens in equal parts, its images spread.

    As in a run, the last sampled token leads it.
    """
    tokens, images = turn.reply + 1, turn.images
    count = max(-(-tokens // buckets.tokens[-1]), -(-images // max(buckets.images[-1], 1)), 1)
    return [
        (tokens * (i + 1) // count - tokens * i // count, images * (i + 1) // count - images * i // count)
        for i in range(count)
    ]


def simulate_rollout(
    groups: Sequence[Sequence[Lengths]],
    hosts: int,
    engine: EngineShape,
    calls: Calls,
    costs: HostCosts,
    shared_queue: bool = False,
) -> list[HostTime]:
    """The time of each host for conversations about some questions.

    Args:
      groups: the conversations about each question.
      hosts: every one has an equal part of the questions, as in a run: the n-th, the n+hosts-th, ...
      engine: of each host.
      calls, costs: how long devices and hosts need.
      shared_queue: hosts read single conversations from one queue instead.
    """
    every: list[Queue] = [deque() for _ in range(hosts)]
    for number, group in enumerate(groups):
        every[0 if shared_queue else number % hosts].extend((number, one) for one in group)
    queues = every[:1] * hosts if shared_queue else every
    machines = [SimulatedHost(engine, calls, costs, queue) for queue in queues]
    runs = [machine.run() for machine in machines]
    waiting = [(0.0, number) for number in range(hosts)]  # the host of the earliest clock continues
    while waiting:
        _, number = heapq.heappop(waiting)
        clock = next(runs[number], None)
        if clock is not None:
            heapq.heappush(waiting, (clock, number))
    return [machine.time for machine in machines]
