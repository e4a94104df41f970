"""The Grain pipeline that shuffles, encodes and batches training examples.

An example depends on its number alone, and the iterator's state is part of the checkpoint, so a resumed run
sees exactly the batches that the stopped one would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import grain

from vilasr_jax.processing import Batch, Buckets, Budget, Encoded, collate
from vilasr_jax.tasks.packed import PackedBatches
from vilasr_jax.tasks.rows import Source


class Batches(Protocol):
    """An endless iterator of batches that a checkpoint can hold.

    `replaced` names the unusable examples that those of the last batch replace.
    """

    replaced: list[Mapping[str, Any]]

    def __iter__(self) -> Iterator[Batch]: ...

    def __next__(self) -> Batch: ...

    def get_state(self) -> dict[str, Any]:
        """Its place, as plain data."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Resumes where `get_state` was called."""


def batches(
    sources: Sequence[Source[Encoded]],
    weights: Sequence[float],
    *,
    seed: int,
    batch: int,
    buckets: Buckets,
    packing: Budget | None = None,
    lookahead: int = 16,
    host: tuple[int, int] = (0, 1),
    gather: Callable[[Any], list[Any]] = lambda value: [value],
    workers: int = 2,
) -> Batches:
    """An endless, deterministic iterator of batches.

    Args:
      sources: random-access collections of `Encoded`; each is reshuffled at every epoch.
      weights: each source's fraction of the examples.
      seed: of the order.
      batch: examples per batch, or packed rows; over all hosts.
      buckets: static shapes, see `processing.collate`.
      packing: several examples in a row of this size; None: one.
      lookahead: examples that each row is chosen from when packing.
      host: (index, count) of this host, which reads the index-th of count equal parts of each batch.
      gather: see `PackedBatches`.
      workers: threads that make and encode examples.
    """
    parts = [
        grain.MapDataset.source(source).seed(seed + i).shuffle().repeat() for i, source in enumerate(sources)
    ]
    mixed = parts[0] if len(parts) == 1 else grain.MapDataset.mix(parts, weights=list(weights))
    if packing is not None:
        return PackedBatches(
            mixed, packing, batch, lookahead=lookahead, host=host, gather=gather, workers=workers
        )
    return PaddedBatches(mixed, buckets, batch, host, workers)


class PaddedBatches:
    """Batches of an example a row, read ahead by Grain, with `get_state` and `set_state`.

    The state is the number of batches returned, so any number of hosts can resume from it.
    """

    def __init__(
        self,
        examples: grain.MapDataset,
        buckets: Buckets,
        batch: int,
        host: tuple[int, int],
        workers: int = 2,
    ):
        self._examples, self._buckets, self._batch, self._host = examples, buckets, batch, host
        self._workers = workers
        self._returned = 0
        self._iterator: Iterator[tuple[Batch, list[Mapping[str, Any]]]] | None = None
        self.replaced: list[Mapping[str, Any]] = []

    def __iter__(self) -> PaddedBatches:
        return self

    def __next__(self) -> Batch:
        self._iterator = self._read() if self._iterator is None else self._iterator
        batch, self.replaced = next(self._iterator)
        self._returned += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """The number of batches returned."""
        return {"taken": self._returned}

    def set_state(self, state: dict[str, int]) -> None:
        """Resumes where `get_state` was called."""
        self._returned, self._iterator = int(state["taken"]), None

    def _read(self) -> Iterator[tuple[Batch, list[Mapping[str, Any]]]]:
        number, count = self._host
        own = self._batch // count
        mine = self._examples[self._returned * self._batch + number :: count]
        read = grain.ReadOptions(num_threads=self._workers, prefetch_buffer_size=4 * own)
        return iter(mine.to_iter_dataset(read).batch(own, drop_remainder=True, batch_fn=self._collate))

    def _collate(self, examples: Sequence[Encoded]) -> tuple[Batch, list[Mapping[str, Any]]]:
        replaced = [line for example in examples for line in example.replaced]
        return collate(examples, buckets=self._buckets), replaced
