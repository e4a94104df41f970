"""The vision tower: patches -> blocks of attention within an image -> tokens, from several depths.

A token of the language model comes from 2x2 patches after the last block, and again after a few earlier ones
(DeepStack, arXiv 2406.04334): the decoder reads the first as an embedding, and adds the others later.
"""

import itertools
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from vilasr_jax.models.inputs import VisionInput
from vilasr_jax.models.qwen3_vl.config import ModelConfig
from vilasr_jax.models.sharding import constrain, layout
from vilasr_jax.models.transformer.attention import self_attention
from vilasr_jax.models.transformer.context_parallel import by_device, token_shards
from vilasr_jax.models.transformer.layers import Embedding, LayerNorm, Linear
from vilasr_jax.models.transformer.rope import rope_2d
from vilasr_jax.models.transformer.stack import scan_layers, unstack
from vilasr_jax.models.transformer.vision import VisionBlock, gelu, merge


class VisionMLP(nnx.Module):
    """down(gelu(up(x)))."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        v, n = config.vision, config.vision.depth
        self.up_proj = Linear(v.hidden_size, v.intermediate_size, config, bias=True, rngs=rngs, layers=n)
        self.down_proj = Linear(v.intermediate_size, v.hidden_size, config, bias=True, rngs=rngs, layers=n)

    def __call__(self, x: Float[Array, "r p d"]) -> Float[Array, "r p d"]:
        """x [r, p, d] -> [r, p, d]."""
        return self.down_proj(gelu(constrain(self.up_proj(x), layout("training").act_rpd), approximate=True))


class PatchMerger(nnx.Module):
    """Four neighbouring patches -> one token of the language model: norm, linear, GELU, linear."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        v = config.vision
        width = v.hidden_size * v.merge_unit
        self.norm = LayerNorm(v.hidden_size, config, eps=v.layer_norm_eps)
        self.fc1 = Linear(width, width, config, bias=True, rngs=rngs)
        self.fc2 = Linear(width, v.out_hidden_size, config, bias=True, rngs=rngs)

    def __call__(self, x: Float[Array, "r p v"]) -> Float[Array, "r m d"]:
        """x [r, p, d_vision] -> [r, p / 4, d]."""
        return merge(self.norm(x).reshape(x.shape[0], -1, self.fc1.kernel.shape[0]), self.fc1, self.fc2)


class DeepStackMerger(nnx.Module):
    """One merger, which norms four patches as one.

    Built with the weights of all mergers stacked (leading axis: depth); called with one slice.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        v, n = config.vision, len(config.vision.deepstack_block_indexes)
        self.width = v.hidden_size * v.merge_unit
        self.norm = LayerNorm(self.width, config, eps=v.layer_norm_eps, layers=n)
        self.up_proj = Linear(self.width, self.width, config, bias=True, rngs=rngs, layers=n)
        self.down_proj = Linear(self.width, v.out_hidden_size, config, bias=True, rngs=rngs, layers=n)

    def __call__(self, x: Float[Array, "r p v"]) -> Float[Array, "r m d"]:
        """x [r, p, d_vision] -> [r, p / 4, d]."""
        return merge(self.norm(x.reshape(x.shape[0], -1, self.width)), self.up_proj, self.down_proj)


class VisionTower(nnx.Module):
    """Patch and position embeddings, blocks and mergers."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        v = config.vision
        norm = partial(LayerNorm, v.hidden_size, config, eps=v.layer_norm_eps, layers=v.depth)
        self.patch_embed = Linear(v.patch_dim, v.hidden_size, config, bias=True, rngs=rngs)
        self.pos_embed = Embedding(v.position_side**2, v.hidden_size, config, rngs=rngs)
        self.blocks = VisionBlock(config, norm, partial(VisionMLP, config, rngs=rngs), rngs=rngs)
        self.merger = PatchMerger(config, rngs=rngs)
        self.deepstack_mergers = DeepStackMerger(config, rngs=rngs) if v.deepstack_block_indexes else None
        self.config = config

    def __call__(self, vision: VisionInput) -> Float[Array, "b m w"]:
        """Images -> tokens [b, n * p / 4, (1 + k) d], vision rows of a sample one after the other."""
        config = self.config.vision
        b, n, p, _ = vision.patches.shape
        patches, pos_hw, image_ids = (
            a.reshape(b * n, *a.shape[2:]) for a in (vision.patches, vision.pos_hw, vision.image_ids)
        )
        x = constrain(
            self.patch_embed(patches) + self._positions(pos_hw, image_ids), layout("training").act_rpd
        )
        *early, last = self._run(x, rope_2d(pos_hw, config.head_dim, config.rope_theta), image_ids)
        tokens = [self.merger(last)]
        if self.deepstack_mergers is not None:
            mergers = unstack(self.deepstack_mergers, len(early))
            tokens += [merger(y) for merger, y in zip(mergers, early, strict=True)]
        return jnp.concatenate(tokens, axis=-1).reshape(b, n * p // config.merge_unit, -1)

    def _positions(self, pos_hw: Int[Array, "r p 2"], image_ids: Int[Array, "r p"]) -> Float[Array, "r p d"]:
        """The learned embedding [r, p, d] of each patch, the table stretched to its image (bilinear).

        Args:
          pos_hw: int [r, p, 2].
          image_ids: int [r, p], a run of one number for each image.
        """
        side = self.config.vision.position_side
        scaled = pos_hw * ((side - 1) / jnp.maximum(last_patch(pos_hw, image_ids), 1))
        low = jnp.clip(jnp.floor(scaled).astype(jnp.int32), 0, side - 1)
        part, high = scaled - low, jnp.minimum(low + 1, side - 1)
        table = constrain(self.pos_embed.embedding[...], layout("training").vector_ld).astype(jnp.float32)
        total = jnp.zeros((*pos_hw.shape[:2], table.shape[1]), jnp.float32)
        for row, row_weight in ((low, 1 - part), (high, part)):
            for column, column_weight in ((low, 1 - part), (high, part)):
                weight = row_weight[..., 0] * column_weight[..., 1]
                total += weight[..., None] * table[row[..., 0] * side + column[..., 1]]
        return total.astype(self.config.dtype)

    def _run(
        self, x: Float[Array, "r p d"], rope: Sequence[Float[Array, "r p half"]], image_ids: Int[Array, "r p"]
    ) -> list[Float[Array, "r p d"]]:
        """Patches [r, p, d] -> those after each block of `deepstack_block_indexes`, and after the last."""
        config, act_rpd = self.config.vision, layout("training").act_rpd
        graphdef, weights = nnx.split(self.blocks)
        ends = [index + 1 for index in config.deepstack_block_indexes]
        spans = list(itertools.pairwise([0, *ends, config.depth]))

        def run(weights, x, cos, sin, image_ids, gather=None):
            attend = partial(
                self_attention,
                segment_ids=image_ids,
                causal=False,
                backend=self.config.attention,
                by_rows=True,
                width=config.head_dim,
            )
            outputs = []
            for start, end in spans:
                if start < end:
                    x = scan_layers(
                        nnx.merge(graphdef, jax.tree.map(lambda w, a=start, z=end: w[a:z], weights)),
                        lambda block, x, _: constrain(block(x, (cos, sin), attend), act_rpd),
                        x,
                        remat=self.config.remat,
                        unroll=min(self.config.scan_unroll, end - start),
                        gather=gather,
                    )
                outputs.append(x)
            return outputs

        arrays = (x, *rope, image_ids)
        if token_shards(self.config) == 1:
            return run(weights, *arrays)
        return by_device(run, weights, arrays, (act_rpd,) * len(arrays), self.config.dtype)


def last_patch(pos_hw: Int[Array, "r p 2"], image_ids: Int[Array, "r p"]) -> Int[Array, "r p 2"]:
    """Row and column [r, p, 2] of the last patch of each patch's image: the image's size less one.

    Patches of an image are contiguous, and in merge-block order the last is at the bottom right.
    """
    p = image_ids.shape[1]
    next_ids = jnp.pad(image_ids[:, 1:], ((0, 0), (0, 1)), constant_values=-1)
    ends = jnp.where(image_ids != next_ids, jnp.arange(p), p - 1)
    ends = jax.lax.cummin(ends, axis=1, reverse=True)
    return jnp.take_along_axis(pos_hw, ends[..., None], axis=1)
