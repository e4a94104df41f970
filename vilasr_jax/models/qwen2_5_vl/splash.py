"""Splash attention: TPU kernels that never hold the [t, t] scores, neither forward nor backward.

The kernels take lengths and head widths that are multiples of 128; others are padded here, with segment 0 and
with zeros, which change no result.
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash

from vilasr_jax.models.qwen2_5_vl.stack import ATTENTION

_LANES = 128
_BLOCKS = (512, 256, 128)
_KEY_BLOCKS = (2048, 1024, *_BLOCKS)  # backward, of keys: each gives a part of dq, as large as all of it


def splash_self_attention(q, k, v, segment_ids, *, causal: bool, interpret: bool = False):
    """As `attention.self_attention`.

    Args:
      q: [b, t, n, h]; k, v: [b, t, kv, h].
      segment_ids: int [b, t].
      causal: whether tokens see only themselves and what is before them.
      interpret: run the kernels step by step on any device, for tests.

    Returns:
      [b, t, n, h] in q's dtype.
    """
    t, n, h = q.shape[1:]
    length, width = -t % _LANES, -h % _LANES
    q = q * h**-0.5  # of the true width
    q, k, v = (jnp.pad(a, ((0, 0), (0, length), (0, 0), (0, width))).swapaxes(1, 2) for a in (q, k, v))
    segment_ids = jnp.pad(segment_ids, ((0, 0), (0, length)))
    total = t + length
    mask = (splash.CausalMask if causal else splash.FullMask)((total, total))
    kernel = splash.make_splash_mha(
        mask=splash.MultiHeadMask([mask] * n),
        head_shards=1,
        q_seq_shards=1,
        block_sizes=_block_sizes(*(_largest(sizes, total) for sizes in (_BLOCKS, _KEY_BLOCKS))),
        residual_checkpoint_name=ATTENTION,
        interpret=interpret,
    )
    with jax.named_scope("causal" if causal else "full"):  # a plan counts a causal kernel's work as half
        out = jax.vmap(kernel)(q, k, v, segment_ids=splash.SegmentIds(segment_ids, segment_ids))
    return out[..., :t, :h].swapaxes(1, 2).astype(q.dtype)


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
