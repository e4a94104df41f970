"""The FLOPs that a step's mathematics needs, from the model's sizes: what utilisation is measured against.

A multiplication and an addition count as two. What remat computes again, padding of heads and masked scores
outside an attention window are not counted; causal attention counts half of its scores.
"""

from __future__ import annotations

from vilasr_jax.models.qwen2_5_vl import ModelConfig

_WINDOW_PATCHES = 64  # of 14 pixels in a window of 112


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
    scores = 4 * d * (full * patches + (v.depth - full) * min(_WINDOW_PATCHES, patches))
    return rows * patches * (2.0 * weights + scores)


def training_factor(freeze: tuple[str, ...], lora_rank: int) -> tuple[int, int]:
    """How often the forward FLOPs of (language model, vision tower) are spent in a training step.

    Forward once; backward twice, or once where only the way to the weights below is needed.
    """
    language = 2 if lora_rank or "language" in freeze else 3
    vision_trained = not {"vision", "merger"} <= set(freeze) and not lora_rank
    if not vision_trained and "language" in freeze:
        language = 1
    return language, 3 if vision_trained else 1


def decode_step(config: ModelConfig, rows: int, cached: int) -> float:
    """FLOPs of one token for each of `rows` rows that look at `cached` slots."""
    c = config
    scores = c.num_layers * 4 * c.num_heads * c.head_dim * cached
    return language_forward(config, 1, rows) + rows * scores
