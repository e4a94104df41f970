"""The Grain pipeline that shuffles, encodes and batches training examples.

Every example is made from its number alone, and the iterator's state is part of the checkpoint, so a
restarted run sees exactly the batches that the broken one would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import grain

from vilasr_jax.processing import Batch, Buckets, collate


def batches(
    sources: Sequence, weights: Sequence[float], *, seed: int, batch: int, buckets: Buckets
) -> grain.DatasetIterator[Batch]:
    """An endless, deterministic iterator of batches, with `get_state` and `set_state`.

    Args:
      sources: random-access collections of `Encoded`; each is shuffled anew at every pass.
      weights: each source's share of the examples.
      seed: of the order.
      batch: examples a batch.
      buckets: static shapes, see `processing.collate`.
    """
    parts = [
        grain.MapDataset.source(source).seed(seed + i).shuffle().repeat()
        for i, source in enumerate(sources)
    ]
    mixed = parts[0] if len(parts) == 1 else grain.MapDataset.mix(parts, weights=list(weights))
    read = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4 * batch)
    dataset = mixed.to_iter_dataset(read).batch(
        batch, drop_remainder=True, batch_fn=lambda examples: collate(examples, buckets=buckets)
    )
    return iter(dataset)
