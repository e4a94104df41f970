"""Training examples by number, and the Grain pipeline that shuffles, encodes and batches them.

Every example is made from its number alone, and the iterator's state is part of the checkpoint, so a
restarted run sees exactly the batches that the broken one would have seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grain

from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.processing import Batch, Buckets, Encoded, Tokenizer, collate, encode_conversation
from vilasr_jax.tasks.maze import (
    MazeSpec,
    direct_trace,
    expert_trace,
    make_maze_row,
    perception_example,
    text_trace,
)
from vilasr_jax.tasks.replay import replay


@dataclass(frozen=True)
class TraceSource:
    """`count` expert traces of mazes, encoded. `format`: drawing, text or direct."""

    spec: MazeSpec
    settings: DrawingSettings
    tokenizer: Tokenizer
    count: int
    slip_share: float = 0.0
    format: str = "drawing"
    first_seed: int = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Encoded:
        seed = self.first_seed + int(index)
        row = make_maze_row(self.spec, seed)
        if self.format == "drawing":
            rng = random.Random(f"trace {seed}")
            trace = expert_trace(row, rng, slip=rng.random() < self.slip_share, labels="line")
        else:
            trace = {"text": text_trace, "direct": direct_trace}[self.format](row)
        return encode_conversation(
            self.tokenizer, replay(trace, self.settings), add_generation_prompt=False
        )


@dataclass(frozen=True)
class PerceptionSource:
    """Single-turn questions about what is where on a marked maze, encoded."""

    spec: MazeSpec
    settings: DrawingSettings
    tokenizer: Tokenizer
    count: int
    first_seed: int = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Encoded:
        messages = perception_example(self.spec, self.first_seed + int(index), self.settings)
        return encode_conversation(self.tokenizer, messages, add_generation_prompt=False)


@dataclass(frozen=True)
class MappedSource:
    """Stored items, each turned into an `Encoded` when it is asked for."""

    items: Sequence
    encode: Callable[[object], Encoded]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Encoded:
        return self.encode(self.items[int(index)])


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
