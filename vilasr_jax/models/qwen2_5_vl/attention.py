"""Attention, in one place: who may look at whom is said with segment ids or cache lengths, never a mask tensor.

segment ids of a packed row      1 1 1 2 2 0      0 is padding
query 4 (segment 2), causal      . . . x x .
query 2 (segment 1), causal      x x x . . .
"""

import jax
import jax.numpy as jnp

from vilasr_jax.models.qwen2_5_vl.layers import matmul_precision

_MASKED = -1e30  # finite: a row that may look at nothing yields some average, not NaN


def self_attention(q, k, v, segment_ids, *, causal: bool, backend: str = "xla"):
    """softmax(q k^T / sqrt(h)) v among the tokens of one segment.

    Args:
      q: [b, t, n, h]; k, v: [b, t, kv, h] with n a multiple of kv (grouped-query attention).
      segment_ids: int [b, t]; tokens see only their own segment; what a 0 token gets is meaningless.
      causal: whether tokens see only themselves and what is before them.
      backend: "xla" (plain).

    Returns:
      [b, t, n, h] in q's dtype.
    """
    if backend != "xla":
        raise NotImplementedError(f"attention backend {backend!r}")
    mask = (segment_ids[:, :, None] == segment_ids[:, None, :]) & (segment_ids != 0)[:, None, :]
    if causal:
        index = jnp.arange(q.shape[1])
        mask &= index[:, None] >= index[None, :]
    return _plain(q, k, v, mask)


def cached_attention(q, k, v, visible):
    """Attention into a cache: query j of row i sees slots 0 .. visible[i, j] - 1.

    Args:
      q: [b, t, n, h]; k, v: [b, s, kv, h].
      visible: int [b, t].

    Returns:
      [b, t, n, h] in q's dtype.
    """
    return _plain(q, k, v, jnp.arange(k.shape[1]) < visible[:, :, None])


def _plain(q, k, v, mask):
    """mask: bool [b, t, s]. Softmax in float32."""
    b, t, n, h = q.shape
    kv = k.shape[2]
    precision = matmul_precision(q.dtype)
    q = (q * h**-0.5).reshape(b, t, kv, n // kv, h)
    scores = jnp.einsum("btkgh,bskh->bkgts", q, k, precision=precision, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(jnp.where(mask[:, None, None], scores, _MASKED), axis=-1).astype(v.dtype)
    return jnp.einsum("bkgts,bskh->btkgh", weights, v, precision=precision).reshape(b, t, n, h)
