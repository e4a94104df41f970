"""The one writer of vision rows, for padded, packed and rollout batches.

    vision row 0   [image A .......][image C ..] . .      image ids  1 1 1 1 2 2 0 0
    vision row 1   [image B .............] . . . . .                 1 1 1 1 1 0 0 0

A vision row has p patches. Images never cross rows; windows and images are numbered from 1 inside a row, and
padding is zeros at its end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from vilasr_jax.models import ImageSpec, VisionInput
from vilasr_jax.models.family import Grid
from vilasr_jax.processing.images import DEFAULT, patch_layout, write_patches

ImagePlace = tuple[int, int]  # vision row, first patch


def empty_vision(b: int, n: int, p: int, spec: ImageSpec = DEFAULT) -> VisionInput[np.ndarray]:
    """Padding: b examples (or shards) of n vision rows of p patches."""
    return VisionInput(
        np.zeros((b, n, p, spec.patch_dim), np.float32),
        np.zeros((b, n, p, 2), np.int32),
        np.zeros((b, n, p), np.int32),
        np.zeros((b, n, p), np.int32),
    )


def patch_counts(grids: Sequence[Grid]) -> list[int]:
    """Patches of each still image."""
    return [rows * columns for _, rows, columns in grids]


def first_fit(
    counts: Sequence[int], used: Sequence[int], patches: int, rows: int | None = None
) -> tuple[list[ImagePlace], list[int]] | None:
    """Places images in the first vision row with enough free patches.

    Args:
      counts: patches of each image.
      used: patches used so far, a number for each vision row in use.
      patches: of a vision row.
      rows: vision rows there may be; None: as many as are needed.

    Returns:
      The place of each image, and `used` with them; None when an image does not fit.

    >>> first_fit([4, 8, 4], [], 8)
    ([(0, 0), (1, 0), (0, 4)], [8, 8])
    """
    used, places = list(used), []
    for count in counts:
        row = next((row for row, filled in enumerate(used) if filled + count <= patches), len(used))
        if row == len(used):
            if row == rows or count > patches:
                return None
            used.append(0)
        places.append((row, used[row]))
        used[row] += count
    return places, used


def write_image(
    vision: VisionInput[np.ndarray],
    example: int,
    place: ImagePlace,
    image: Image.Image,
    grid: Grid,
    spec: ImageSpec,
) -> np.ndarray:
    """Writes an image into a vision row whose patches from there on are still padding.

    Args:
      vision: host arrays, changed in place.
      example: index of the example or shard.
      place: vision row of the example, and first patch.
      image: RGB, resized.
      grid: its `image_grid`.
      spec: how the model cuts images.

    Returns:
      int64 [rows * columns / merge_unit], the indexes of its tokens among the vision tokens of the example.
    """
    row, start = place
    count = grid[1] * grid[2]
    patches = slice(start, start + count)
    write_patches(image, grid, vision.patches[example, row, patches], spec)
    pos_hw, window_ids, image_ids = patch_layout(grid, spec)
    vision.pos_hw[example, row, patches] = pos_hw
    for ids, own in ((vision.window_ids, window_ids), (vision.image_ids, image_ids)):
        ids[example, row, patches] = own + ids[example, row, :start].max(initial=0)
    first = (row * vision.patches.shape[2] + start) // spec.merge_unit
    return first + np.arange(count // spec.merge_unit)


def image_token_index(written: Sequence[np.ndarray]) -> np.ndarray:
    """The token indexes of an example's images one after another; empty where it has none."""
    return np.concatenate([np.zeros(0, np.int64), *written])
