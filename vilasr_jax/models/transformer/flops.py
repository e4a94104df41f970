"""The FLOPs that the mathematics of the decoder needs, from the model's sizes.

A multiplication and an addition count as two. What remat computes again, padding of heads and masked scores
are not counted; causal attention counts half of its scores.
"""

from __future__ import annotations

from vilasr_jax.models.transformer.config import TransformerConfig


def language_forward(config: TransformerConfig, tokens: int, rows: int, *, head: bool = True) -> float:
    """Forward FLOPs of the decoder (and its head) on `rows` rows of `tokens` tokens each."""
    c = config
    attention = 2 * c.hidden_size * (c.num_heads + c.num_kv_heads) * c.head_dim  # q, o, k, v
    layer = attention + 3 * c.hidden_size * c.intermediate_size
    weights = c.num_layers * layer + (c.vocab_size * c.hidden_size if head else 0)
    scores = c.num_layers * 4 * c.num_heads * c.head_dim * tokens / 2
    return rows * tokens * (2.0 * weights + scores)


def decode_step(config: TransformerConfig, rows: int, cached: int) -> float:
    """FLOPs of one token for each of `rows` rows that look at `cached` slots."""
    c = config
    scores = c.num_layers * 4 * c.num_heads * c.head_dim * cached
    return language_forward(config, 1, rows) + rows * scores
