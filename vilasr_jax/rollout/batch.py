"""Host arrays of the compiled calls: new tokens padded to buckets, their images packed.

A call runs m rows per shard. Its images are packed, first fit, into vision rows of p patches, whichever row
they belong to, so that the vision tower computes little padding:

    vision row 0   [image of row 0 .....][image of row 2 ..]
    vision row 1   [image of row 1 ...............] . . . . .
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from PIL import Image

from vilasr_jax.errors import DataError
from vilasr_jax.models import ImageSpec, VisionInput
from vilasr_jax.models.family import Grid
from vilasr_jax.processing import Buckets, Encoded, patch_counts
from vilasr_jax.processing.images import DEFAULT
from vilasr_jax.processing.vision_rows import (
    ImagePlace,
    empty_vision,
    first_fit,
    image_token_index,
    write_image,
)


@dataclass(frozen=True)
class Incoming:
    """Tokens about to enter a cache, the first of them at M-RoPE position `start`."""

    encoded: Encoded
    start: int

    @property
    def grids(self) -> Sequence[Grid]:
        """Frames, patch rows and patch columns of each image."""
        return self.encoded.grids

    @cached_property
    def positions(self) -> np.ndarray:
        """[3, t] int32."""
        return self._positions[0]

    @property
    def next_position(self) -> int:
        """The M-RoPE position after the last token."""
        return self._positions[1]

    @cached_property
    def _positions(self) -> tuple[np.ndarray, int]:
        encoded = self.encoded
        rule = encoded.special.family.positions
        return rule(encoded.ids, encoded.grids, encoded.special, start=self.start)

    def pieces(self, buckets: Buckets) -> list[Incoming]:
        """Consecutive pieces that each fit the largest buckets; entering one after another they are the same.

        Text is cut anywhere, an image never. A reply that fits is one piece.

        Raises:
          DataError: an image alone is larger than the largest bucket of tokens or patches.
        """
        encoded, pieces, start = self.encoded, [], self.start
        upcoming = iter(zip(encoded.images, self.grids, strict=True))
        begin = end = 0  # first and last + 1 token of the piece being filled
        piece_images: list[tuple[Image.Image, Grid]] = []  # images of that piece

        def close() -> None:
            nonlocal begin, piece_images, start
            if end > begin:
                cut = slice(begin, end)
                images, grids = [image for image, _ in piece_images], [grid for _, grid in piece_images]
                part = Encoded(encoded.ids[cut], encoded.loss_mask[cut], images, encoded.special, grids=grids)
                pieces.append(Incoming(part, start))
                begin, piece_images, start = end, [], pieces[-1].next_position

        most = buckets.tokens[-1]
        while end < len(encoded.ids):
            if encoded.ids[end] != encoded.special.image_pad:
                if end - begin == most:
                    close()
                end += 1
                continue
            image, grid = next(upcoming)
            patches = grid[1] * grid[2]
            tokens = patches // buckets.spec.merge_unit
            if tokens > most or patches > buckets.patches[-1] or not buckets.images[-1]:
                raise DataError(f"an image of {patches} patches is larger than the largest bucket")
            if end - begin + tokens > most or len(piece_images) == buckets.images[-1]:
                close()
            piece_images.append((image, grid))
            end += tokens
        close()
        return pieces


class NewTokens(NamedTuple):
    """Tokens that enter the caches of m rows before the model writes; all shards, one after another."""

    tokens: np.ndarray  # [m, t] int32, right-padded
    positions: np.ndarray  # [3, m, t] int32
    length: np.ndarray  # [m] int32; 0: padding
    image_index: np.ndarray  # [m, t] int32, a merged token of the shard's vision rows; -1 for text
    vision: VisionInput[np.ndarray] | None  # per shard [1, n, p, ...]; None without images


class Shape(NamedTuple):
    """Static sizes of a call."""

    rows: int  # m, per shard
    tokens: int  # t
    images: int  # n, vision rows per shard; 0: no vision tower
    patches: int  # p, patches per vision row


def vision_rows(rows: int, buckets: Buckets) -> list[int]:
    """Ascending numbers of vision rows that a call of `rows` rows may have.

    None, as many as its rows have at each bucket of images, and halves of the most, for several images in
    one vision row or rows that have none.
    """
    most = rows * buckets.images[-1]
    halves = {most >> shift for shift in range(most.bit_length())}
    return sorted({0, *halves, *(rows * images for images in buckets.images)})


def shapes(row_buckets: Sequence[int], buckets: Buckets) -> Iterator[Shape]:
    """The static shapes of all calls."""
    for rows in row_buckets:
        for tokens in buckets.tokens:
            for images in vision_rows(rows, buckets):
                for patches in buckets.patches if images else (0,):
                    yield Shape(rows, tokens, images, patches)


def split(counts: list[int], row_buckets: Sequence[int]) -> Iterator[tuple[int, list[slice]]]:
    """Divides `counts` rows of each shard over calls: rows m of a call, and each shard's part.

    Small calls waste less padding, a large one has less overhead: it is used when more than half full.
    """
    small, big = row_buckets[0], row_buckets[-1]
    done, most = 0, max(counts)
    while done < most:
        size = big if most - done > big // 2 else small
        yield size, [slice(done, done + size)] * len(counts)
        done += size


def new_tokens(shards: list[list[Incoming]], rows: int, buckets: Buckets) -> NewTokens:
    """The arrays of one call with `rows` rows per shard, in the smallest buckets that hold all."""
    every = [new for shard in shards for new in shard]
    tokens = buckets.fit("tokens", max(len(new.encoded.ids) for new in every))
    counts = [patch_counts([grid for new in shard for grid in new.grids]) for shard in shards]
    largest = max((count for of_shard in counts for count in of_shard), default=0)
    patches = buckets.fit("patches", largest) if largest else 0
    places: list[list[ImagePlace]] = []
    most = 0
    for of_shard in counts:
        placed = first_fit(of_shard, [], patches)
        assert placed is not None, "no image is larger than the bucket"
        places.append(placed[0])
        most = max(most, len(placed[1]))
    images = next(size for size in vision_rows(rows, buckets) if size >= most)
    arrays = empty_tokens(Shape(rows, tokens, images, patches), len(shards), buckets.spec)
    for number, (shard, own) in enumerate(zip(shards, places, strict=True)):
        upcoming = iter(own)
        for row, new in enumerate(shard, number * rows):
            length = len(new.encoded.ids)
            arrays.tokens[row, :length], arrays.length[row] = new.encoded.ids, length
            arrays.positions[:, row, :length] = new.positions
            if arrays.vision is not None and new.grids:
                written = [
                    write_image(arrays.vision, number, next(upcoming), image, grid, buckets.spec)
                    for image, grid in zip(new.encoded.images, new.grids, strict=True)
                ]
                pads = new.encoded.ids == new.encoded.special.image_pad
                arrays.image_index[row, :length][pads] = image_token_index(written)
    return arrays


def empty_tokens(shape: Shape, shards: int, spec: ImageSpec = DEFAULT) -> NewTokens:
    """A call with nothing but padding."""
    b, t, n, p = shards * shape.rows, *shape[1:]
    vision = empty_vision(shards, n, p, spec)
    return NewTokens(
        np.zeros((b, t), np.int32),
        np.zeros((3, b, t), np.int32),
        np.zeros(b, np.int32),
        np.full((b, t), -1, np.int32),
        vision if n else None,
    )
