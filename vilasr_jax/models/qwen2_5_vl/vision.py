"""The vision tower: patches -> blocks of windowed or full attention -> one token for each 2x2 patches."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from vilasr_jax.models.attention_backends import attention_backend
from vilasr_jax.models.inputs import VisionInput
from vilasr_jax.models.qwen2_5_vl.config import ModelConfig
from vilasr_jax.models.sharding import constrain, layout
from vilasr_jax.models.transformer.attention import banded_attention, self_attention
from vilasr_jax.models.transformer.context_parallel import by_device, token_shards
from vilasr_jax.models.transformer.layers import Linear, RMSNorm, SwiGLU
from vilasr_jax.models.transformer.rope import rope_2d
from vilasr_jax.models.transformer.stack import scan_layers
from vilasr_jax.models.transformer.vision import VisionBlock, merge


class PatchMerger(nnx.Module):
    """Four neighbouring patches -> one token of the language model: norm, linear, GELU, linear."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        v = config.vision
        width = v.hidden_size * v.merge_unit
        self.ln_q = RMSNorm(v.hidden_size, config, eps=v.rms_norm_eps)
        self.fc1 = Linear(width, width, config, bias=True, rngs=rngs)
        self.fc2 = Linear(width, v.out_hidden_size, config, bias=True, rngs=rngs)
        self.width = width

    def __call__(self, x: Float[Array, "r p d_vision"]) -> Float[Array, "r merged d"]:
        """x [r, p, d_vision] -> [r, p / 4, d]."""
        return merge(self.ln_q(x).reshape(x.shape[0], -1, self.width), self.fc1, self.fc2)


class VisionTower(nnx.Module):
    """Patch embedding, blocks and merger."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        v, n = config.vision, config.vision.depth
        norm = partial(RMSNorm, v.hidden_size, config, eps=v.rms_norm_eps, layers=n)
        mlp = partial(
            SwiGLU,
            v.hidden_size,
            v.intermediate_size,
            config,
            bias=True,
            act_rf=layout("training").act_rpd,
            rngs=rngs,
            layers=n,
        )
        self.patch_embed = Linear(v.patch_dim, v.hidden_size, config, bias=False, rngs=rngs)
        self.blocks = VisionBlock(config, norm, mlp, rngs=rngs)
        self.merger = PatchMerger(config, rngs=rngs)
        self.config = config

    def __call__(self, vision: VisionInput) -> Float[Array, "b m d"]:
        """Images -> tokens [b, m, d] with m = n * p / 4, vision rows of a sample one after the other."""
        config, backend = self.config.vision, self.config.attention
        b, n, p, _ = vision.patches.shape
        patches, pos_hw, window_ids, image_ids = (a.reshape(b * n, *a.shape[2:]) for a in vision[:4])
        is_full = np.isin(np.arange(config.depth), config.fullatt_block_indexes)
        act_rpd = layout("training").act_rpd
        x = constrain(self.patch_embed(patches), act_rpd)
        longest = config.window_patches
        banded = attention_backend(backend).banded_windows and p > 3 * longest  # else nothing is saved
        if banded:  # the patches of a window side by side, padding last
            order = jnp.argsort(jnp.where(window_ids == 0, window_ids.max() + 1, window_ids), stable=True)
            x, pos_hw = (jnp.take_along_axis(a, order[..., None], 1) for a in (x, pos_hw))
            window_ids, image_ids = (jnp.take_along_axis(a, order, 1) for a in (window_ids, image_ids))
        rope = rope_2d(pos_hw, config.head_dim, config.rope_theta)

        def attend(full, q, k, v, image_ids, window_ids):
            if not banded:
                ids = jnp.where(full, image_ids, window_ids)
                return self_attention(
                    q, k, v, ids, causal=False, backend=backend, by_rows=True, width=config.head_dim
                )
            return jax.lax.cond(
                full,
                partial(self_attention, segment_ids=image_ids, causal=False),
                partial(banded_attention, segment_ids=window_ids, longest=longest),
                q,
                k,
                v,
            )

        graphdef, weights = nnx.split(self.blocks)

        def run(weights, x, cos, sin, image_ids, window_ids, gather=None):
            def apply(block, x, full):
                ids = dict(image_ids=image_ids, window_ids=window_ids)
                return constrain(block(x, (cos, sin), partial(attend, full, **ids)), act_rpd)

            return scan_layers(
                nnx.merge(graphdef, weights),
                apply,
                x,
                is_full,
                remat=self.config.remat,
                unroll=min(self.config.scan_unroll, config.depth),
                gather=gather,
            )

        arrays = (x, *rope, image_ids, window_ids)
        if token_shards(self.config) == 1:
            x = run(weights, *arrays)
        else:
            x = by_device(run, weights, arrays, (act_rpd,) * len(arrays), self.config.dtype)
        if banded:
            x = jnp.take_along_axis(x, jnp.argsort(order)[..., None], 1)
        return self.merger(x).reshape(b, n * p // config.merge_unit, -1)
