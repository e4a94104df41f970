"""An endless stream of packed batches.

Row r of every batch is a lane of its own: it reads examples r, r + rows, r + 2 rows, ... of the shuffled
stream, a few ahead, and fills its row with the oldest and then the longest that still fit. So a row's content
does not depend on the number of hosts, and a host encodes only the examples of its own rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from vilasr_jax.processing import Batch, Budget, Encoded, PackedRow, check_fits, collate_packed


class PackedBatches:
    """Batches of packed rows, with `get_state` and `set_state` as Grain's iterators have them.

    Args:
      examples: random access to the (endless) shuffled stream of `Encoded`.
      budget: what a row holds.
      rows: of a batch, over all hosts.
      lookahead: examples that a lane chooses from.
      host: (index, count) of this host, which makes the index-th of count equal parts of the rows.
      gather: every host's value of a small JSON-able thing, where there are several hosts.
      tokens_per_second: from the model's vision config.
      workers: threads that make and encode examples.

    Raises:
      DataError: on `next`, an example that no row can hold.
    """

    def __init__(
        self,
        examples: Sequence[Encoded],
        budget: Budget,
        rows: int,
        *,
        lookahead: int = 16,
        host: tuple[int, int] = (0, 1),
        gather: Callable[[Any], list[Any]] = lambda value: [value],
        tokens_per_second: float = 2,
        workers: int = 2,
    ):
        self._examples, self._budget, self._rows = examples, budget, rows
        self._lookahead, self._tokens_per_second = lookahead, tokens_per_second
        self._gather = gather
        number, count = host
        own = rows // count
        self._mine = range(number * own, (number + 1) * own)
        self._encoders = ThreadPoolExecutor(workers)
        self._maker = ThreadPoolExecutor(1)
        self._waiting: dict[int, Future] = {}
        self._lanes: dict[int, tuple[int, list[int]]] = {}
        self._state: dict[int, tuple[int, list[int]]] = {r: (0, []) for r in self._mine}
        self._coming: Future | None = None
        self.replaced: list[Mapping[str, Any]] = []  # the unusable examples that the last batch's replace

    def __iter__(self) -> PackedBatches:
        return self

    def __next__(self) -> Batch:
        if self._coming is None:
            self._lanes = dict(self._state)
            self._coming = self._maker.submit(self._make)
        batch, self._state, self.replaced = self._coming.result()
        self._coming = self._maker.submit(self._make)
        return batch

    def get_state(self) -> dict[str, Any]:
        """For each lane of every host: the number of its next example, and those it has not placed yet."""
        lanes: dict[str, Any] = {}
        for part in self._gather({str(r): lane for r, lane in self._state.items()}):
            lanes |= part
        return {"lanes": lanes}

    def set_state(self, state: dict[str, Any]) -> None:
        """Resumes where `get_state` was called, on any number of hosts."""
        if self._coming is not None:
            self._coming.result()
            self._coming = None
        self._waiting.clear()
        lanes = {r: state["lanes"][str(r)] for r in self._mine}
        self._state = {r: (int(following), list(pending)) for r, (following, pending) in lanes.items()}

    def _make(self) -> tuple[Batch, dict[int, tuple[int, list[int]]], list[Mapping[str, Any]]]:
        for r in self._mine:
            self._look_ahead(r)
        packed = [self._fill(r) for r in self._mine]
        for r in self._mine:
            self._look_ahead(r)  # encoded while the rows are collated and trained on
        batch = collate_packed(packed, self._budget, tokens_per_second=self._tokens_per_second)
        replaced = [line for row in packed for example in row.examples for line in example.replaced]
        return batch, dict(self._lanes), replaced

    def _look_ahead(self, r: int) -> None:
        following, pending = self._lanes[r]
        pending = list(pending)
        while len(pending) < self._lookahead:
            pending.append(following * self._rows + r)
            following += 1
        for index in pending:
            if index not in self._waiting:
                self._waiting[index] = self._encoders.submit(self._examples.__getitem__, index)
        self._lanes[r] = following, pending

    def _fill(self, r: int) -> PackedRow:
        following, pending = self._lanes[r]
        ready = {index: self._waiting[index].result() for index in pending}
        oldest, *others = pending
        check_fits(ready[oldest], self._budget, f"example {oldest}")
        row, used = PackedRow(self._budget), [oldest]
        row.add(ready[oldest])
        for index in sorted(others, key=lambda index: -len(ready[index].ids)):
            if row.add(ready[index]):
                used.append(index)
        for index in used:
            del self._waiting[index]
        self._lanes[r] = following, [index for index in pending if index not in used]
        return row
