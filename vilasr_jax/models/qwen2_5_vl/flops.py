"""The FLOPs that the mathematics of the two towers needs, from the model's sizes.

A multiplication and an addition count as two. What remat computes again, padding of heads and masked scores
outside an attention window are not counted; causal attention counts half of its scores.
"""

from __future__ import annotations

from vilasr_jax.models.qwen2_5_vl.config import ModelConfig


def language_forward(config: ModelConfig, tokens: int, rows: int, *, head: bool = True) -> float:
    """Forward FLOPs of the decoder (and its head) on `rows` rows of `tokens` tokens each."""
    c = config
    attention = 2 * c.hidden_size * (c.num_heads + c.num_kv_heads) * c.head_dim  # q, o, k, v
    layer = attention + 3 * c.hidden_size * c.intermediate_size
    weights = c.num_layers * layer + (c.vocab_size * c.hidden_size if head else 0)
    scores = c.num_layers * 4 * c.num_heads * c.head_dim * tokens / 2
    return rows * tokens * (2.0 * weights + scores)


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


def decode_step(config: ModelConfig, rows: int, cached: int) -> float:
    """FLOPs of one token for each of `rows` rows that look at `cached` slots."""
    c = config
    scores = c.num_layers * 4 * c.num_heads * c.head_dim * cached
    return language_forward(config, 1, rows) + rows * scores
