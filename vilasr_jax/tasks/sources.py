"""Training examples by index, generated or read on access."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.processing import Encoded, Tokenizer, encode_conversation
from vilasr_jax.tasks.family import Family
from vilasr_jax.tasks.replay import replay
from vilasr_jax.tasks.rows import Source

Item = TypeVar("Item")
FORMATS = ("drawing", "text", "direct")


@dataclass(frozen=True)
class TraceSource:
    """`count` expert traces of a family, encoded. `format`: drawing, text or direct."""

    family: Family
    spec: Any
    settings: DrawingSettings
    tokenizer: Tokenizer
    count: int
    slip_fraction: float = 0.0
    format: str = "drawing"
    first_seed: int = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Encoded:
        seed = self.first_seed + int(index)
        row = self.family.row(self.spec, seed)
        if self.format == "drawing":
            rng = random.Random(f"trace {seed}")
            trace = self.family.expert_trace(row, rng, slip=rng.random() < self.slip_fraction)
        else:
            controls = {"text": self.family.text_trace, "direct": self.family.direct_trace}
            trace = controls[self.format](row)
        return encode_conversation(self.tokenizer, replay(trace, self.settings))


@dataclass(frozen=True)
class PerceptionSource:
    """A family's questions about what is where, encoded."""

    family: Family
    spec: Any
    settings: DrawingSettings
    tokenizer: Tokenizer
    count: int
    first_seed: int = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Encoded:
        messages = self.family.perception(self.spec, self.first_seed + int(index), self.settings)
        assert messages is not None, "a family has such questions for every seed, or for none"
        return encode_conversation(self.tokenizer, messages)


@dataclass(frozen=True)
class Interleaved:
    """Sources in turn: number i is number i // n of source i % n, until the shortest ends."""

    sources: tuple[Source[Encoded], ...]

    def __len__(self) -> int:
        return len(self.sources) * min(map(len, self.sources))

    def __getitem__(self, index: int) -> Encoded:
        turn, source = divmod(int(index), len(self.sources))
        return self.sources[source][turn]


@dataclass(frozen=True)
class MappedSource(Generic[Item]):
    """Stored items, each turned into an `Encoded` on access."""

    items: Source[Item]
    encode: Callable[[Item], Encoded]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Encoded:
        return self.encode(self.items[int(index)])


@dataclass(frozen=True)
class Selected(Generic[Item]):
    """Some items of a source, by their numbers."""

    items: Source[Item]
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Item:
        return self.items[self.numbers[int(index)]]
