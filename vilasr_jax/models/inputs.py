"""Input of a vision tower, for host and device code; loads no JAX."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

Array = TypeVar("Array")  # np.ndarray on the host, jax.Array on devices


class VisionInput(NamedTuple, Generic[Array]):
    """Pictures of a batch: n vision rows per sample, each packing the patches of one or more images.

    Patches come in the Hugging Face processor's order (the four of a merged block are contiguous), p is a
    multiple of four, and padding is at the end of a row, zeros with id 0.

    Attributes:
      patches: [b, n, p, patch_dim] float32.
      pos_hw: [b, n, p, 2] int32, patch row and column.
      window_ids: [b, n, p] int32, patches of one attention window have one number, unique in the vision row.
      image_ids: [b, n, p] int32, patches of one image and frame have one number, unique in the vision row.
    """

    patches: Array
    pos_hw: Array
    window_ids: Array
    image_ids: Array
