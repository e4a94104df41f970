"""A model with odd widths, and random inputs for it, so that a mixed-up axis cannot go unseen."""

import numpy as np

from vilasr_jax.models.qwen2_5_vl import VisionInput, preset
from vilasr_jax.processing import patch_layout

SMALL = preset(
    "tiny",
    vocab_size=211,
    hidden_size=130,
    intermediate_size=71,
    num_heads=5,
    num_kv_heads=1,
    head_dim=26,
    mrope_section=(3, 5, 5),
    vision={"depth": 3, "hidden_size": 40, "intermediate_size": 59},
    init_std=0.12,
    scan_unroll=1,
)


def text_batch(b: int, t: int, seed: int = 0):
    """(tokens, positions, segment_ids) of b rows of plain text."""
    tokens = np.random.default_rng(seed).integers(0, SMALL.vocab_size, (b, t)).astype(np.int32)
    positions = np.broadcast_to(np.arange(t, dtype=np.int32), (3, b, t))
    return tokens, positions, np.ones((b, t), np.int32)


def image_rows(grids, length: int, seed: int = 0) -> VisionInput:
    """One sample whose vision rows hold an image each, padded to `length` patches."""
    rng = np.random.default_rng(seed)
    n = len(grids)
    vision = VisionInput(
        np.zeros((1, n, length, 1176), np.float32),
        np.zeros((1, n, length, 2), np.int32),
        np.zeros((1, n, length), np.int32),
        np.zeros((1, n, length), np.int32),
    )
    for row, grid in enumerate(grids):
        layout = patch_layout(grid)
        p = len(layout[0])
        vision.patches[0, row, :p] = rng.normal(size=(p, 1176))
        for array, values in zip(vision[1:], layout, strict=True):
            array[0, row, :p] = values
    return vision
