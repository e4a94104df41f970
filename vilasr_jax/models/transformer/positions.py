"""M-RoPE positions: three indices a token (frame, row, column), counted as transformers counts them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Int32

from vilasr_jax.errors import DataError
from vilasr_jax.models.family import Grid


def mrope_positions(
    ids: Int[np.ndarray, " t"],
    grids: Sequence[Grid],
    special: Any,
    *,
    start: int = 0,
    second_per_grid_ts: Sequence[float] | None = None,
    tokens_per_second: float = 2,
    merge_size: int = 2,
) -> tuple[Int32[np.ndarray, "3 t"], int]:
    """Positions of a conversation, or of the next piece of one.

    Text counts up by one on all three axes. An image of h x w merged tokens that begins at position s has
    (s, s + row, s + column), and text continues at s + max(h, w). A clip's frame k is at
    s + floor(k * tokens_per_second * second_per_grid).

    Args:
      ids: [t] token ids.
      grids: (frames, patch rows, patch columns) of every image and clip, in the order of `ids`.
      special: the tokenizer's `SpecialTokens`.
      start: position of the first token; the number returned for the piece before.
      second_per_grid_ts: seconds between two temporal patches, one number a clip (None: 1 second).
      tokens_per_second: from the model's vision config.
      merge_size: patches per side that become one token.

    Returns:
      positions [3, t] int32, and the position of the token that comes next.

    Raises:
      DataError: the image or video tokens in `ids` are not those that `grids` call for.
    """
    ids = np.asarray(ids)
    kind = np.where(ids == special.image_pad, 1, np.where(ids == special.video_pad, 2, 0))
    bounds = np.flatnonzero(np.diff(kind)) + 1
    starts, ends = [0, *bounds.tolist()], [*bounds.tolist(), len(ids)]
    positions = np.empty((3, len(ids)), np.int32)
    next_grid, next_clip, position = 0, 0, start
    for begin, end in zip(starts, ends, strict=True):
        if begin == end:  # no tokens at all
            continue
        if kind[begin] == 0:
            positions[:, begin:end] = np.arange(position, position + end - begin)
            position += end - begin
            continue
        if next_grid == len(grids):
            raise DataError(f"token {begin} begins picture {next_grid + 1}, but only {len(grids)} were given")
        frames, rows, columns = grids[next_grid]
        rows, columns = rows // merge_size, columns // merge_size
        next_grid += 1
        if frames * rows * columns != end - begin:
            raise DataError(
                f"picture {next_grid} has {end - begin} tokens, its size calls for {frames * rows * columns}"
            )
        interval = np.float32(1)
        if kind[begin] == 2:
            seconds = 1 if second_per_grid_ts is None else second_per_grid_ts[next_clip]
            interval = np.float32(tokens_per_second) * np.float32(seconds)
            next_clip += 1
        frame = (np.arange(frames, dtype=np.float32) * interval).astype(np.int64)
        shape = (frames, rows, columns)
        axes = (frame[:, None, None], np.arange(rows)[:, None], np.arange(columns))
        for axis, values in enumerate(axes):
            positions[axis, begin:end] = np.broadcast_to(values + position, shape).reshape(-1)
        position += max(rows, columns)
    if next_grid != len(grids):
        raise DataError(f"{len(grids)} pictures were given, but the tokens hold {next_grid}")
    return positions, position
