"""Collates conversations into one padded batch of static shape.

Every length is rounded up to a bucket, so that a step is compiled for few shapes. A vision row holds one
picture: row k of an example is its k-th picture, its patches left-aligned.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Generic, NamedTuple

import numpy as np

from vilasr_jax.errors import ConfigError, DataError
from vilasr_jax.models import ImageSpec, VisionInput
from vilasr_jax.models.inputs import Array
from vilasr_jax.processing.chat import Encoded
from vilasr_jax.processing.images import DEFAULT
from vilasr_jax.processing.vision_rows import empty_vision, image_token_index, patch_counts, write_image


class Batch(NamedTuple, Generic[Array]):
    """Conversations of a step, right-padded.

    Attributes:
      tokens: [b, t] int32, padded with 0.
      positions: [3, b, t] int32.
      segment_ids: [b, t] int32, the number of the conversation in its row, from 1; 0 for padding.
      image_index: [b, t] int32, index of the example's merged vision token (row * p / 4 + place) at this
        position; -1 for text.
      vision: the pictures, or None when the bucket for pictures is 0.
      loss_mask: [b, t] bool, True where this token is a target that counts.
      extras: per-token arrays [b, t].
    """

    tokens: Array
    positions: Array
    segment_ids: Array
    image_index: Array
    vision: VisionInput[Array] | None
    loss_mask: Array
    extras: dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Buckets:
    """Allowed lengths, ascending: tokens per example, pictures per example, patches per picture.

    `spec` says how the model cuts pictures.

    Raises:
      ConfigError: an axis is empty or not ascending, or a patch bucket isn't a multiple of `merge_unit`.
    """

    tokens: tuple[int, ...]
    images: tuple[int, ...]
    patches: tuple[int, ...]
    spec: ImageSpec = DEFAULT

    def __post_init__(self):
        for name in ("tokens", "images", "patches"):
            sizes = tuple(getattr(self, name))
            object.__setattr__(self, name, sizes)
            if not sizes or list(sizes) != sorted(set(sizes)) or sizes[0] < 0:
                raise ConfigError(f"buckets.{name}={sizes} must be ascending numbers, at least one")
        if any(size % self.spec.merge_unit for size in self.patches):
            raise ConfigError(f"buckets.patches={self.patches} must be multiples of {self.spec.merge_unit}")

    @property
    def largest(self) -> "Buckets":
        """The last bucket of each axis alone."""
        return Buckets(self.tokens[-1:], self.images[-1:], self.patches[-1:], self.spec)

    def smallest(self, tokens: int, images: int, patches: int) -> tuple[int, int, int]:
        """The smallest bucket of each axis that holds these lengths; DataError where none is large enough."""
        return self.fit("tokens", tokens), self.fit("images", images), self.fit("patches", patches)

    def fit(self, axis: str, length: int) -> int:
        """The smallest bucket of `axis` ("tokens", "images", "patches") that holds `length`.

        Raises:
          DataError: no bucket is large enough.
        """
        for size in getattr(self, axis):
            if length <= size:
                return size
        raise DataError(
            f"{length} {axis} are more than the largest bucket, buckets.{axis}={getattr(self, axis)[-1]}"
        )


def collate(
    examples: Sequence[Encoded], *, buckets: Buckets, rows: int | None = None, tokens_per_second: float = 2
) -> Batch[np.ndarray]:
    """One batch of the examples, padded on the right to the smallest buckets that hold all of them.

    Args:
      examples: conversations; all carry the same extras.
      buckets: the allowed lengths.
      rows: batch size b (the number of examples by default); missing rows are all padding.
      tokens_per_second: from the model's vision config.

    Raises:
      DataError: an example is longer than the largest bucket, or the pictures do not fit its tokens.
    """
    b = len(examples) if rows is None else rows
    if not examples or len(examples) > b:
        raise DataError(f"{len(examples)} examples do not make a batch of {b}")
    spec = buckets.spec
    t = _fit(buckets, "tokens", [len(e.ids) for e in examples])
    n = _fit(buckets, "images", [len(e.grids) for e in examples])
    p = _fit(buckets, "patches", [max(patch_counts(e.grids), default=0) for e in examples])
    extras = {name: np.asarray(value).dtype for name, value in examples[0].extras.items()}
    batch = empty_batch(b, t, n, p, extras, spec)
    vision = batch.vision
    assert vision is not None, "an empty batch has vision rows"
    for i, example in enumerate(examples):
        length = len(example.ids)
        batch.tokens[i, :length] = example.ids
        batch.segment_ids[i, :length] = 1
        batch.loss_mask[i, :length] = example.loss_mask
        try:
            batch.positions[:, i, :length], _ = example.special.family.positions(
                example.ids, example.grids, example.special, tokens_per_second=tokens_per_second
            )
        except DataError as error:
            raise DataError(f"example {i}: {error}") from None
        written = [
            write_image(vision, i, (k, 0), image, grid, spec)
            for k, (image, grid) in enumerate(zip(example.images, example.grids, strict=True))
        ]
        pads = np.asarray(example.ids) == example.special.image_pad
        batch.image_index[i, :length][pads] = image_token_index(written)
        if example.extras.keys() != extras.keys():
            raise DataError(f"example {i} has extras {sorted(example.extras)}, example 0 {sorted(extras)}")
        for name, value in example.extras.items():
            batch.extras[name][i, :length] = value
    return batch if n else batch._replace(vision=None)


def used_lengths(batch: Batch[np.ndarray]) -> tuple[int, int, int]:
    """Tokens of a row, its vision rows, and patches of one, without the padding at their ends."""

    def used(ids: np.ndarray, axis: int) -> int:
        filled = (ids > 0).any(tuple({*range(ids.ndim)} - {axis}))
        return int(np.flatnonzero(filled).max(initial=-1)) + 1

    tokens, vision = used(batch.segment_ids, 1), batch.vision
    return (
        (tokens, 0, 0) if vision is None else (tokens, used(vision.image_ids, 1), used(vision.image_ids, 2))
    )


def trim(batch: Batch[np.ndarray], shape: tuple[int, int, int], merge_unit: int) -> Batch[np.ndarray]:
    """A batch with less padding: views of its arrays.

    Args:
      batch: host arrays.
      shape: (t, n, p), tokens, vision rows and patches of one; no fewer than are used.
      merge_unit: patches of a vision token.
    """
    (t, n, p), vision, index = shape, batch.vision, batch.image_index[:, : shape[0]]
    if vision is not None and n:
        before = vision.patches.shape[2]
        if p < before:
            row, place = np.divmod(index, before // merge_unit)
            index = np.where(index < 0, index, row * (p // merge_unit) + place)
        vision = VisionInput(*(part[:, :n, :p] for part in vision))
    return batch._replace(
        tokens=batch.tokens[:, :t],
        positions=batch.positions[:, :, :t],
        segment_ids=batch.segment_ids[:, :t],
        image_index=index,
        vision=vision if n else None,
        loss_mask=batch.loss_mask[:, :t],
        extras={name: value[:, :t] for name, value in batch.extras.items()},
    )


def empty_batch(
    b: int, t: int, n: int, p: int, extras: Mapping[str, np.dtype], spec: ImageSpec = DEFAULT
) -> Batch[np.ndarray]:
    """b rows of t tokens, and n vision rows of p patches each, all of it padding."""
    return Batch(
        tokens=np.zeros((b, t), np.int32),
        positions=np.zeros((3, b, t), np.int32),
        segment_ids=np.zeros((b, t), np.int32),
        image_index=np.full((b, t), -1, np.int32),
        vision=empty_vision(b, n, p, spec),
        loss_mask=np.zeros((b, t), bool),
        extras={name: np.zeros((b, t), dtype) for name, dtype in extras.items()},
    )


def _fit(buckets: Buckets, axis: str, lengths: Sequence[int]) -> int:
    """The bucket that holds the longest; an error names the example."""
    worst = int(np.argmax(lengths))
    try:
        return buckets.fit(axis, lengths[worst])
    except DataError as error:
        raise DataError(f"example {worst}: {error}") from None
