"""What a vision tower takes; host and device code share it, so that it loads no JAX."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from jax.typing import ArrayLike


class VisionInput(NamedTuple):
    """Pictures of a batch: n vision rows a sample, each packing the patches of one or more pictures.

    Patches come in the Hugging Face processor's order (the four of a merged block follow one another), p is a
    multiple of four, and padding is at the end of a row, zeros with id 0.

    Attributes:
      patches: [b, n, p, patch_dim] float32.
      pos_hw: [b, n, p, 2] int32, patch row and column.
      window_ids: [b, n, p] int32, patches of one attention window share a number, unique in the vision row.
      image_ids: [b, n, p] int32, patches of one picture and frame share a number, unique in the vision row.
    """

    patches: ArrayLike
    pos_hw: ArrayLike
    window_ids: ArrayLike
    image_ids: ArrayLike
