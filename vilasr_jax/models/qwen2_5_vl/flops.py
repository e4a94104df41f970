"""The FLOPs that the mathematics of the vision tower needs; counted as in `transformer.flops`."""

from __future__ import annotations

from vilasr_jax.models.qwen2_5_vl.config import ModelConfig


def vision_forward(config: ModelConfig, patches: int, rows: int) -> float:
    """Forward FLOPs of the vision tower on `rows` vision rows of `patches` patches each."""
    v = config.vision
    d, full = v.hidden_size, len(v.fullatt_block_indexes)
    block = 4 * d * d + 3 * d * v.intermediate_size
    width = d * v.merge_unit
    merger = (width * width + width * v.out_hidden_size) / v.merge_unit  # a patch
    weights = v.depth * block + v.patch_dim * d + merger
    scores = 4 * d * (full * patches + (v.depth - full) * min(v.window_patches, patches))
    return rows * patches * (2.0 * weights + scores)
