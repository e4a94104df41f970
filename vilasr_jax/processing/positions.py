"""M-RoPE positions: three indices a token (frame, row, column), counted as the model's family counts them."""

from collections.abc import Sequence

import numpy as np

from vilasr_jax.models.family import Grid
from vilasr_jax.processing.tokenizer import SpecialTokens


def mrope_positions(
    ids: np.ndarray,
    grids: Sequence[Grid],
    special: SpecialTokens,
    *,
    start: int = 0,
    second_per_grid_ts: Sequence[float] | None = None,
    tokens_per_second: float = 2,
) -> tuple[np.ndarray, int]:
    """Positions of a conversation, or of the next piece of one.

    Args:
      ids: [t] token ids.
      grids: (frames, patch rows, patch columns) of every picture and clip, in the order they stand in `ids`.
      special: the tokenizer's special tokens, which know its family.
      start: position of the first token; the number returned for the piece before.
      second_per_grid_ts: seconds between two temporal patches, one number a clip (None: 1 second).
      tokens_per_second: from the model's vision config.

    Returns:
      positions [3, t] int32, and the position of the token that comes next.

    Raises:
      DataError: the image or video tokens in `ids` are not those that `grids` call for.
    """
    rule = special.family.positions
    return rule(
        ids,
        grids,
        special,
        start=start,
        second_per_grid_ts=second_per_grid_ts,
        tokens_per_second=tokens_per_second,
    )
