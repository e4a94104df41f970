"""The Grain pipeline that shuffles, encodes and batches training examples.

Every example is made from its number alone, and the iterator's state is part of the checkpoint, so a
restarted run sees exactly the batches that the broken one would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain

from vilasr_jax.processing import Batch, Buckets, Budget, collate
from vilasr_jax.tasks.packed import PackedBatches


def batches(
    sources: Sequence,
    weights: Sequence[float],
    *,
    seed: int,
    batch: int,
    buckets: Buckets,
    packing: Budget | None = None,
    lookahead: int = 16,
    share: tuple[int, int] = (0, 1),
    gather: Callable[[Any], list[Any]] = lambda value: [value],
) -> Iterator[Batch]:
    """An endless, deterministic iterator of batches, with `get_state` and `set_state`.

    Args:
      sources: random-access collections of `Encoded`; each is shuffled anew at every pass.
      weights: each source's share of the examples.
      seed: of the order.
      batch: examples a batch, or packed rows; over all hosts.
      buckets: static shapes, see `processing.collate`.
      packing: several examples in a row of this size; None: one.
      lookahead: examples that each row is chosen from when packing.
      share: (number, count): this host reads the number-th of count equal parts of each batch.
      gather: see `PackedBatches`.
    """
    parts = [
        grain.MapDataset.source(source).seed(seed + i).shuffle().repeat() for i, source in enumerate(sources)
    ]
    mixed = parts[0] if len(parts) == 1 else grain.MapDataset.mix(parts, weights=list(weights))
    if packing is not None:
        return PackedBatches(mixed, packing, batch, lookahead=lookahead, share=share, gather=gather)
    number, count = share
    own = batch // count
    mixed = mixed[number::count] if count > 1 else mixed
    read = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4 * own)
    dataset = mixed.to_iter_dataset(read).batch(
        own, drop_remainder=True, batch_fn=lambda examples: collate(examples, buckets=buckets)
    )
    return iter(dataset)
