"""Splash attention: TPU kernels that never hold the [t, t] scores, neither forward nor backward.

The kernels read lengths and head widths that are multiples of 128; others are padded here, with segment 0 and
with zeros, which change no result.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jax.sharding import AbstractMesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from vilasr_jax.models.transformer.context_parallel import AXIS, balanced
from vilasr_jax.models.transformer.remat import ATTENTION

LANES = 128  # the kernels read lengths and head widths in multiples of this
_BLOCKS = (512, 256, 128)
_KEY_BLOCKS = (3072, 2048, 1024, *_BLOCKS)  # backward: large, as each block of keys writes a full-size dq


def splash_self_attention(
    q: Float[Array, "b t n h"],
    k: Float[Array, "b t kv h"],
    v: Float[Array, "b t kv h"],
    segment_ids: Int[Array, "b t"],
    *,
    causal: bool,
    width: int | None = None,
    interpret: bool = False,
) -> Float[Array, "b t n h"]:
    """As `attention.self_attention`.

    Args:
      q: [b, t, n, h]; k, v: [b, t, kv, h].
      segment_ids: int [b, t].
      causal: whether tokens see only themselves and what is before them.
      width: of a head without its padding; by default h.
      interpret: run the kernels step by step on any device, for tests.

    Returns:
      [b, t, n, h] in q's dtype.
    """
    t = q.shape[1]
    length = -t % LANES
    q, k, v = (jnp.pad(a, ((0, 0), (0, length), (0, 0), (0, 0))) for a in (q, k, v))
    segment_ids = jnp.pad(segment_ids, ((0, 0), (0, length)))
    mask = (splash.CausalMask if causal else splash.FullMask)((t + length, t + length))
    kernel = _kernel(mask, q.shape[2], 1, interpret)
    with jax.named_scope("causal" if causal else "full"):  # a plan counts a causal kernel's work as half
        return _apply(kernel, q, k, v, splash.SegmentIds(segment_ids, segment_ids), width)[:, :t]


def splash_context_attention(
    q: Float[Array, "b own n h"],
    k: Float[Array, "b t kv h"],
    v: Float[Array, "b t kv h"],
    segment_ids: Int[Array, "b own"],
    key_segment_ids: Int[Array, "b t"],
    *,
    interpret: bool = False,
) -> Float[Array, "b own n h"]:
    """As `attention.context_attention`, with all keys.

    Args:
      q: [b, own, n, h], one device's part of `context_parallel.balanced`.
      k, v: [b, t, kv, h] in the row's order.
      segment_ids: int [b, own]; key_segment_ids: int [b, t].
      interpret: as above.
    """
    t, shards = k.shape[1], k.shape[1] // q.shape[1]
    mask = splash.CausalMask((t, t))
    mask.q_sequence = balanced(t, shards).astype(np.int32)
    kernel = _own_part(_kernel(mask, q.shape[2], shards, interpret), shards)
    with jax.named_scope("causal"):
        return _apply(kernel, q, k, v, splash.SegmentIds(segment_ids, key_segment_ids))


def _kernel(mask, heads: int, shards: int, interpret: bool):
    total = mask.shape[0]
    return splash.make_splash_mha(
        mask=splash.MultiHeadMask([mask] * heads),
        head_shards=1,
        q_seq_shards=shards,
        block_sizes=_block_sizes(_largest(_BLOCKS, total // shards), _largest(_KEY_BLOCKS, total)),
        residual_checkpoint_name=ATTENTION,
        interpret=interpret,
    )


def _own_part(kernel, shards: int):
    """This device's part of a kernel that is built for the queries of all devices of the axis."""
    place = NamedSharding(AbstractMesh((shards,), (AXIS,)), P(None, AXIS))

    def cut(array, spec):
        if AXIS not in spec:
            return array
        at = tuple(spec).index(AXIS)
        size = array.shape[at] // shards
        return jax.lax.dynamic_slice_in_dim(array, jax.lax.axis_index(AXIS) * size, size, at)

    return jax.tree.map(cut, kernel, kernel.manual_sharding_spec(place))


def _apply(kernel, q, k, v, segment_ids, width: int | None = None):
    """q [b, t, n, h], k, v [b, s, kv, h] -> [b, t, n, h]; h is padded with zeros."""
    h = q.shape[-1]
    q = q * (width or h) ** -0.5
    q, k, v = (jnp.pad(a, ((0, 0),) * 3 + ((0, -h % LANES),)).swapaxes(1, 2) for a in (q, k, v))
    out = jax.vmap(kernel)(q, k, v, segment_ids=segment_ids)
    return out[..., :h].swapaxes(1, 2).astype(q.dtype)


def _largest(sizes: tuple[int, ...], total: int) -> int:
    return next(size for size in sizes if total % size == 0)


def _block_sizes(size: int, keys: int) -> splash.BlockSizes:
    return splash.BlockSizes(
        block_q=size,
        block_kv=size,
        block_kv_compute=size,
        block_q_dkv=size,
        block_kv_dkv=keys,
        block_kv_dkv_compute=size,
        use_fused_bwd_kernel=True,
    )
