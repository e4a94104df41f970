"""Several conversations and their pictures in one row of a fixed size.

    tokens      a a a a b b b b b c c . .      segment ids 1 1 1 1 2 2 2 2 2 3 3 0 0, positions restart
    vision row  A A A A B B B B B B B B .      image ids   1 1 1 1 2 2 2 2 ...
    vision row  C C C C C C B B B B . . .      an image is in the first vision row with enough free patches

The shape is the same for every step, so nothing recompiles, and little of it is padding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from vilasr_jax.errors import ConfigError, DataError
from vilasr_jax.models import ImageSpec
from vilasr_jax.processing.batching import Batch, empty_batch
from vilasr_jax.processing.chat import Encoded
from vilasr_jax.processing.images import DEFAULT
from vilasr_jax.processing.vision_rows import (
    ImagePlace,
    first_fit,
    image_token_index,
    patch_counts,
    write_image,
)


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a packed row holds.

    Attributes:
      tokens: of all its conversations.
      vision_rows: rows of patches.
      patches: of a vision row; a multiple of a token's, no smaller than the largest picture.
      spec: how the model cuts pictures.
    """

    tokens: int
    vision_rows: int
    patches: int
    spec: ImageSpec = DEFAULT

    def __post_init__(self):
        merged = self.spec.merge_unit
        if self.tokens < 1 or self.vision_rows < 1 or self.patches < merged or self.patches % merged:
            raise ConfigError(
                f"packing: tokens={self.tokens} and vision_rows={self.vision_rows} must be positive and "
                f"patches={self.patches} a multiple of {merged}"
            )


class PackedRow:
    """A row that is being filled."""

    def __init__(self, budget: Budget):
        self.examples: list[Encoded] = []
        self.places: list[list[ImagePlace]] = []  # of each conversation's images
        self._tokens = budget.tokens
        self._used: list[int] = []  # patches of each vision row
        self._budget = budget

    @property
    def tokens(self) -> int:
        """Tokens that are used."""
        return self._budget.tokens - self._tokens

    @property
    def vision_rows(self) -> int:
        """Vision rows that are used."""
        return len(self._used)

    @property
    def patches(self) -> int:
        """Patches of a vision row."""
        return self._budget.patches

    @property
    def tokens_left(self) -> int:
        """Tokens that are still free."""
        return self._tokens

    def add(self, example: Encoded) -> bool:
        """Adds a conversation if it fits; returns whether it did."""
        if len(example.ids) > self._tokens:
            return False
        placed = first_fit(
            patch_counts(example.grids), self._used, self._budget.patches, self._budget.vision_rows
        )
        if placed is None:
            return False
        places, self._used = placed
        self.examples.append(example)
        self.places.append(places)
        self._tokens -= len(example.ids)
        return True


def check_fits(example: Encoded, budget: Budget, what: str = "example") -> None:
    """Raises DataError for a conversation that no row of `budget` can hold."""
    if PackedRow(budget).add(example):
        return
    sizes = patch_counts(example.grids)
    raise DataError(
        f"{what} has {len(example.ids)} tokens and {len(sizes)} pictures of up to {max(sizes, default=0)} "
        f"patches; a packed row holds packing.tokens={budget.tokens} and packing.vision_rows="
        f"{budget.vision_rows} of packing.patches={budget.patches}"
    )


def pack(examples: Sequence[Encoded], budget: Budget) -> list[PackedRow]:
    """All of `examples` in few rows: the longest first, each into the fullest row that holds it.

    Raises:
      DataError: one of them is larger than a row.
    """
    rows: list[PackedRow] = []
    for number in sorted(range(len(examples)), key=lambda i: -len(examples[i].ids)):
        example = examples[number]
        if not any(row.add(example) for row in sorted(rows, key=lambda row: row.tokens_left)):
            check_fits(example, budget, f"example {number}")
            rows.append(PackedRow(budget))
            rows[-1].add(example)
    return rows


def collate_packed(
    packed: Sequence[PackedRow],
    budget: Budget,
    *,
    rows: int | None = None,
    extras: Mapping[str, np.dtype] | None = None,
    tokens_per_second: float = 2,
) -> Batch[np.ndarray]:
    """The batch of packed rows; the model and the losses read it as any other.

    Args:
      packed: filled rows; there may be none at all.
      budget: their size.
      rows: batch size (the number of `packed` by default); missing rows are all padding.
      extras: names and dtypes of the per-token arrays (by default those of the first conversation).
      tokens_per_second: from the model's vision config.
    """
    b, t, n, p = len(packed) if rows is None else rows, budget.tokens, budget.vision_rows, budget.patches
    if extras is None:
        first = packed[0].examples[0].extras if packed else {}
        extras = {name: np.asarray(value).dtype for name, value in first.items()}
    batch = empty_batch(b, t, n, p, extras, budget.spec)
    for i, row in enumerate(packed):
        at = 0
        for segment, (example, places) in enumerate(zip(row.examples, row.places, strict=True), 1):
            where = slice(at, at + len(example.ids))
            _write(batch, i, where, segment, example, places, budget, tokens_per_second)
            at += len(example.ids)
    return batch


def _write(
    batch: Batch[np.ndarray],
    i: int,
    at: slice,
    segment: int,
    example: Encoded,
    places: Sequence[ImagePlace],
    budget: Budget,
    tokens_per_second: float,
) -> None:
    """One conversation into tokens `at` of row i, its pictures at their places."""
    batch.tokens[i, at] = example.ids
    batch.segment_ids[i, at] = segment
    batch.loss_mask[i, at] = example.loss_mask
    batch.positions[:, i, at], _ = example.special.family.positions(
        example.ids, example.grids, example.special, tokens_per_second=tokens_per_second
    )
    for name, array in batch.extras.items():
        array[i, at] = example.extras[name]
    assert batch.vision is not None, "an empty batch has vision rows"
    written = [
        write_image(batch.vision, i, place, image, grid, budget.spec)
        for image, grid, place in zip(example.images, example.grids, places, strict=True)
    ]
    pads = np.asarray(example.ids) == example.special.image_pad
    batch.image_index[i, at][pads] = image_token_index(written)
