"""Attention, in one place: segment ids or cache lengths say which tokens see which, not masks.

segment ids of a packed row      1 1 1 2 2 0      0 is padding
query 4 (segment 2), causal      . . . x x .
query 2 (segment 1), causal      x x x . . .
"""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from vilasr_jax.models.attention_backends import attention_backend
from vilasr_jax.models.products import matmul_precision
from vilasr_jax.models.sharding import split_by_heads, split_by_rows
from vilasr_jax.models.transformer.context_parallel import AXIS, balanced, gather_tokens
from vilasr_jax.models.transformer.remat import ATTENTION
from vilasr_jax.models.transformer.splash import splash_context_attention, splash_self_attention

_MASKED = -1e30  # finite: a row that may look at nothing yields some average, not NaN
_BLOCK = 64  # queries of a causal block, at least
_MAX_BLOCKS = 16
_MAX_SCORES = 1 << 23  # of all rows and heads, where attention is not causal, at once


def self_attention(
    q: Float[Array, "b t n h"],
    k: Float[Array, "b t kv h"],
    v: Float[Array, "b t kv h"],
    segment_ids: Int[Array, "b t"],
    *,
    causal: bool,
    backend: str = "xla",
    by_rows: bool = False,
    width: int | None = None,
) -> Float[Array, "b t n h"]:
    """softmax(q k^T / sqrt(h)) v among the tokens of one segment.

    Args:
      q: [b, t, n, h]; k, v: [b, t, kv, h] with n a multiple of kv (grouped-query attention).
      segment_ids: int [b, t]; tokens see only their own segment; what a 0 token gets is meaningless.
      causal: whether tokens see only themselves and what is before them.
      backend: name of an `attention_backends.AttentionBackend`.
      by_rows: on a mesh, the devices of `model` have rows of their own, not heads.
      width: of a head, where q, k and v are padded with zeros for the kernels; by default h.

    Returns:
      [b, t, n, h] in q's dtype.
    """
    chosen = attention_backend(backend)
    if chosen.opaque_kernel:
        kernel = partial(splash_self_attention, causal=causal, width=width, interpret=chosen.interpret)
        rows, _, heads, _ = q.shape
        split = split_by_rows(kernel, rows) if by_rows else split_by_heads(kernel, rows, heads, k.shape[2])
        return split(q, k, v, segment_ids)
    t = q.shape[1]
    mask = _same_segment(segment_ids, segment_ids)
    k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
    if not causal:
        return _by_queries(q, k, v, mask)
    index = jnp.arange(t)
    mask &= index[:, None] >= index[None, :]
    # A block of queries needs no keys after its own end: with many blocks nearly half of the work falls away.
    size = max(_BLOCK, -(-t // _MAX_BLOCKS))
    ends = [min(start + size, t) for start in range(0, t, size)]
    blocks = [
        _dense_attention(q[:, start:end], k[:, :, :end], v[:, :, :end], mask[:, start:end, :end])
        for start, end in pairwise([0, *ends])
    ]
    return jnp.concatenate(blocks, axis=1) if len(blocks) > 1 else blocks[0]


def context_attention(
    q: Float[Array, "b own n h"],
    k: Float[Array, "b own kv h"],
    v: Float[Array, "b own kv h"],
    segment_ids: Int[Array, "b own"],
    *,
    backend: str = "xla",
) -> Float[Array, "b own n h"]:
    """Causal `self_attention` by a device that holds a part of each row's tokens (see `context_parallel`).

    Args:
      q: [b, own, n, h]; k, v: [b, own, kv, h], own being the tokens of a row that the device holds.
      segment_ids: int [b, own].
      backend: as in `self_attention`.

    Returns:
      [b, own, n, h] in q's dtype.
    """
    k, v, key_ids = (gather_tokens(x) for x in (k, v, segment_ids))
    chosen = attention_backend(backend)
    if chosen.opaque_kernel:
        return splash_context_attention(q, k, v, segment_ids, key_ids, interpret=chosen.interpret)
    t, own = k.shape[1], q.shape[1]
    order = jnp.asarray(balanced(t, t // own)).reshape(-1, own)[jax.lax.axis_index(AXIS)]
    mask = _same_segment(segment_ids, key_ids) & (order[:, None] >= jnp.arange(t))
    return _dense_attention(q, k.swapaxes(1, 2), v.swapaxes(1, 2), mask)


def banded_attention(
    q: Float[Array, "b t n h"],
    k: Float[Array, "b t kv h"],
    v: Float[Array, "b t kv h"],
    segment_ids: Int[Array, "b t"],
    longest: int,
) -> Float[Array, "b t n h"]:
    """`self_attention` (not causal) where the tokens of a segment are contiguous, at most `longest`.

    A block of `longest` queries then needs no more than its own keys and those of its two neighbours.

    Args:
      q: [b, t, n, h]; k, v: [b, t, kv, h].
      segment_ids: int [b, t], each number one run of tokens; 0 is padding.
      longest: tokens of the longest segment.

    Returns:
      [b, t, n, h] in q's dtype.
    """
    t = q.shape[1]
    if t <= 3 * longest:
        return self_attention(q, k, v, segment_ids, causal=False)

    def blocks(x):
        """[b, t, ...] -> [b * blocks, longest, ...]."""
        x = jnp.pad(x, ((0, 0), (0, -t % longest), *((0, 0),) * (x.ndim - 2)))
        return x.reshape(-1, longest, *x.shape[2:])

    def neighbours(x):
        """[b, t, ...] -> [b * blocks, 3 * longest, ...]: the block before, the block, the block after."""
        x = jnp.pad(x, ((0, 0), (longest, longest + -t % longest), *((0, 0),) * (x.ndim - 2)))
        size = x.shape[1] - 2 * longest
        parts = [x[:, i * longest :][:, :size].reshape(-1, longest, *x.shape[2:]) for i in range(3)]
        return jnp.concatenate(parts, axis=1)

    ids, near = blocks(segment_ids), neighbours(segment_ids)
    mask = _same_segment(ids, near)
    out = _dense_attention(blocks(q), neighbours(k).swapaxes(1, 2), neighbours(v).swapaxes(1, 2), mask)
    return out.reshape(q.shape[0], -1, *q.shape[2:])[:, :t]


def cached_attention(
    q: Float[Array, "b t n h"],
    k: Float[Array, "b kv s h"],
    v: Float[Array, "b kv s h"],
    visible: Int[Array, "b t"],
    *,
    backend: str = "xla",
) -> Float[Array, "b t n h"]:
    """Attention into a cache: query j of row i sees slots 0 .. visible[i, j] - 1.

    Slots are read a block at a time, up to the last that any query of the row (of the batch, when a row has
    one query) sees: a cache that is half full costs half, and the scores of a block stay in fast memory. Not
    differentiable.

    Args:
      q: [b, t, n, h]; k, v: [b, kv, s, h], as in the cache.
      visible: int [b, t], at least 1.
      backend: name of the model's backend, which says how many slots are read at once.

    Returns:
      [b, t, n, h] in q's dtype.
    """
    chosen = attention_backend(backend)
    if q.shape[1] == 1:
        if chosen.decode_block is None:
            return _dense_attention(q, k, v, jnp.arange(k.shape[2]) < visible[..., None])
        return _blockwise(q, k, v, visible, chosen.decode_block)

    def row(arguments):
        q, k, v, visible = (x[None] for x in arguments)
        return _blockwise(q, k, v, visible, chosen.cache_block)[0]

    return jax.lax.map(row, (q, k, v, visible))


def _blockwise(
    q: Float[Array, "b t n h"],
    k: Float[Array, "b kv s h"],
    v: Float[Array, "b kv s h"],
    visible: Int[Array, "b t"],
    block: int,
) -> Float[Array, "b t n h"]:
    """Softmax over blocks of slots, with a running maximum and sum (arXiv 1805.02867, 2112.05682)."""
    b, t, n, h = q.shape
    kv, s = k.shape[1:3]
    block = min(block, s)
    matmul = partial(jnp.matmul, precision=matmul_precision(q.dtype), preferred_element_type=jnp.float32)
    q = q.reshape(b, t, kv, n // kv, h).transpose(0, 2, 3, 1, 4).reshape(b, kv, n // kv * t, h)
    limit = jnp.tile(visible[:, None, :], (1, 1, n // kv))[..., None]  # [b, 1, n / kv * t, 1]

    def read(i, carry):
        most, total, out = carry
        start = jnp.minimum(i * block, s - block)  # the last block may overlap the one before
        keys, values = (jax.lax.dynamic_slice_in_dim(x, start, block, axis=2) for x in (k, v))
        slots = start + jnp.arange(block)
        scores = matmul(q, keys.swapaxes(2, 3)) * h**-0.5
        scores = jnp.where((slots < limit) & (slots >= i * block), scores, _MASKED)
        higher = jnp.maximum(most, scores.max(axis=-1, keepdims=True))
        weights, fade = jnp.exp(scores - higher), jnp.exp(most - higher)
        total = total * fade + weights.sum(axis=-1, keepdims=True)
        return higher, total, out * fade + matmul(weights.astype(v.dtype), values)

    zero = 0 * q[..., :1].astype(jnp.float32)  # a constant would be created for all layers in advance
    carry = (zero + _MASKED, zero, jnp.broadcast_to(zero, q.shape))
    with jax.named_scope(f"at_most_{-(-s // block)}_times"):  # `plan.hlo` reads the trip count from the name
        _, total, out = jax.lax.fori_loop(0, (visible.max() + block - 1) // block, read, carry)
    out = (out / total).reshape(b, kv, n // kv, t, h)
    return out.transpose(0, 3, 1, 2, 4).reshape(b, t, n, h).astype(q.dtype)


def _same_segment(ids: Int[Array, "b t"], key_ids: Int[Array, "b s"]) -> Bool[Array, "b t s"]:
    """Queries' ids [b, t], keys' [b, s] -> bool [b, t, s]: whether a query sees a key; 0 is padding."""
    return (ids[:, :, None] == key_ids[:, None, :]) & (key_ids != 0)[:, None, :]


def _by_queries(
    q: Float[Array, "b t n h"],
    k: Float[Array, "b kv s h"],
    v: Float[Array, "b kv s h"],
    mask: Bool[Array, "b t s"],
) -> Float[Array, "b t n h"]:
    """`_dense_attention`, block after block of queries where the scores of all would be gigabytes.

    A gradient computes a block's scores again, so that it doesn't hold those of all blocks.
    """
    t, most = q.shape[1], max(1, _MAX_SCORES // (q.shape[0] * q.shape[2] * k.shape[2]))
    count = -(-t // most)
    if count == 1:
        return _dense_attention(q, k, v, mask)

    def blocks(x: Array) -> Array:
        """[b, t, ...] -> [count, b, t / count, ...], padded."""
        x = jnp.pad(x, ((0, 0), (0, -t % count), *((0, 0),) * (x.ndim - 2)))
        return x.reshape(x.shape[0], count, -1, *x.shape[2:]).swapaxes(0, 1)

    attend = jax.checkpoint(lambda block: _dense_attention(block[0], k, v, block[1]))
    out = jax.lax.map(attend, (blocks(q), blocks(mask))).swapaxes(0, 1)
    return checkpoint_name(out.reshape(q.shape[0], -1, *q.shape[2:])[:, :t], ATTENTION)


def _dense_attention(
    q: Float[Array, "b t n h"],
    k: Float[Array, "b kv s h"],
    v: Float[Array, "b kv s h"],
    mask: Bool[Array, "b t s"],
) -> Float[Array, "b t n h"]:
    """k, v: [b, kv, s, h]; mask: bool [b, t, s].

    Softmax in float32; its denominator is divided out after the sum over values.
    """
    b, t, n, h = q.shape
    kv, s = k.shape[1:3]
    matmul = partial(jnp.matmul, precision=matmul_precision(q.dtype), preferred_element_type=jnp.float32)
    q = q.reshape(b, t, kv, n // kv, h).transpose(0, 2, 3, 1, 4).reshape(b, kv, n // kv * t, h)
    scores = matmul(q, k.swapaxes(2, 3)).reshape(b, kv, n // kv, t, s)
    scores = jnp.where(mask[:, None, None], scores * h**-0.5, _MASKED)
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    out = matmul(weights.astype(v.dtype).reshape(b, kv, n // kv * t, s), v)
    out = out.reshape(b, kv, n // kv, t, h) / weights.sum(axis=-1)[..., None]
    return checkpoint_name(out.transpose(0, 3, 1, 2, 4).reshape(b, t, n, h).astype(q.dtype), ATTENTION)
