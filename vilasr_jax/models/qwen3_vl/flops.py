"""The FLOPs that the mathematics of the vision tower needs; counted as in `transformer.flops`."""

from __future__ import annotations

from vilasr_jax.models.qwen3_vl.config import ModelConfig


def vision_forward(config: ModelConfig, patches: int, rows: int) -> float:
    """Forward FLOPs of the vision tower on `rows` vision rows of `patches` patches each."""
    v = config.vision
    d, width = v.hidden_size, v.hidden_size * v.merge_unit
    block = 4 * d * d + 2 * d * v.intermediate_size
    mergers = 1 + len(v.deepstack_block_indexes)
    merger = (width * width + width * v.out_hidden_size) / v.merge_unit  # a patch
    weights = v.depth * block + v.patch_dim * d + mergers * merger
    return rows * patches * (2.0 * weights + v.depth * 4 * d * patches)
