"""Models of each family with odd widths, and random inputs: a mixed-up axis can not go unseen."""

import numpy as np

from vilasr_jax.models import VisionInput, family_of, preset
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

QWEN3_SMALL = preset(
    "qwen3vl_tiny",
    vocab_size=211,
    hidden_size=130,
    intermediate_size=71,
    num_layers=3,
    num_heads=5,
    num_kv_heads=1,
    head_dim=26,
    mrope_section=(5, 4, 4),
    vision={
        "depth": 3,
        "hidden_size": 40,
        "intermediate_size": 59,
        "position_side": 7,
        "deepstack_block_indexes": (0, 2),
    },
    init_std=0.12,
    scan_unroll=1,
)
SMALLS = {config.model_type: config for config in (SMALL, QWEN3_SMALL)}


def text_batch(b: int, t: int, seed: int = 0):
    """(tokens, positions, segment_ids) of b rows of plain text."""
    tokens = np.random.default_rng(seed).integers(0, SMALL.vocab_size, (b, t)).astype(np.int32)
    positions = np.broadcast_to(np.arange(t, dtype=np.int32), (3, b, t))
    return tokens, positions, np.ones((b, t), np.int32)


def image_rows(grids, length: int, seed: int = 0, config=SMALL) -> VisionInput:
    """One sample whose vision rows hold an image each, padded to `length` patches."""
    rng, spec = np.random.default_rng(seed), family_of(config).images
    n = len(grids)
    vision = VisionInput(
        np.zeros((1, n, length, spec.patch_dim), np.float32),
        np.zeros((1, n, length, 2), np.int32),
        np.zeros((1, n, length), np.int32),
        np.zeros((1, n, length), np.int32),
    )
    for row, grid in enumerate(grids):
        layout = patch_layout(grid, spec)
        p = len(layout[0])
        vision.patches[0, row, :p] = rng.normal(size=(p, spec.patch_dim))
        for array, values in zip(vision[1:], layout, strict=True):
            array[0, row, :p] = values
    return vision
