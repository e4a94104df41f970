"""The language model: a decoder with grouped-query attention, M-RoPE and SwiGLU.

Its input is [b, t, d], or [b, t, (1 + k) d] where a vision tower gives features of k of its depths, too
(DeepStack, arXiv 2406.04334): after the embedding they are k parts of width d, and part i is added to the
output of layer i; text has zeros there.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import zip_longest

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from vilasr_jax.models.sharding import constrain, layout
from vilasr_jax.models.transformer.attention import cached_attention, context_attention, self_attention
from vilasr_jax.models.transformer.cache import KVCache, write, write_slots
from vilasr_jax.models.transformer.config import TransformerConfig
from vilasr_jax.models.transformer.context_parallel import by_device, token_shards
from vilasr_jax.models.transformer.layers import Embedding, Heads, Linear, RMSNorm, SwiGLU
from vilasr_jax.models.transformer.remat import ATTENTION
from vilasr_jax.models.transformer.rope import mrope
from vilasr_jax.models.transformer.stack import scan_layers, unstack


class DecoderLayer(nnx.Module):
    """One decoder layer.

    Built with the weights of all layers stacked (leading axis: layer); `scan_layers` calls it with one slice.
    """

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
        d, h, n = config.hidden_size, config.head_dim, config.num_layers
        self.input_layernorm = RMSNorm(d, config, eps=config.rms_norm_eps, layers=n)
        bias = config.qkv_bias
        self.q_proj = Linear(d, config.num_heads * h, config, bias=bias, rngs=rngs, layers=n)
        self.k_proj = Linear(d, config.num_kv_heads * h, config, bias=bias, rngs=rngs, layers=n)
        self.v_proj = Linear(d, config.num_kv_heads * h, config, bias=bias, rngs=rngs, layers=n)
        self.q_norm = RMSNorm(h, config, eps=config.rms_norm_eps, layers=n) if config.qk_norm else None
        self.k_norm = RMSNorm(h, config, eps=config.rms_norm_eps, layers=n) if config.qk_norm else None
        self.o_proj = Linear(config.num_heads * h, d, config, bias=False, rngs=rngs, layers=n)
        self.post_attention_layernorm = RMSNorm(d, config, eps=config.rms_norm_eps, layers=n)
        self.mlp = SwiGLU(
            d,
            config.intermediate_size,
            config,
            bias=False,
            act_rf=layout("training").mlp_act_rf,
            rngs=rngs,
            layers=n,
        )
        self.heads = Heads(h, config.attention)
        self.act_btd = layout("training").act_btd

    def __call__(
        self, x: Float[Array, "b t d"], rope: Sequence[Float[Array, "b t half"]], attend: Callable
    ) -> Float[Array, "b t d"]:
        """x [b, t, d] -> [b, t, d]; `attend(q [b,t,n,h], k [b,t,kv,h], v) -> [b,t,n,h]` gets them rotated."""
        y = self.input_layernorm(x)
        q, k, v = (self.heads.project(y, proj)[0] for proj in (self.q_proj, self.k_proj, self.v_proj))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = self.heads.rotate(q, rope), self.heads.rotate(k, rope)
        out = attend(*(checkpoint_name(a, ATTENTION) for a in (q, k, v)))
        x = checkpoint_name(x + constrain(self.heads.merge(out, self.o_proj), self.act_btd), ATTENTION)
        return x + constrain(self.mlp(self.post_attention_layernorm(x)), self.act_btd)


class LanguageModel(nnx.Module):
    """Token table, decoder layers and final norm."""

    def __init__(self, config: TransformerConfig, *, rngs: nnx.Rngs):
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, config, rngs=rngs)
        self.layers = DecoderLayer(config, rngs=rngs)
        self.norm = RMSNorm(config.hidden_size, config, eps=config.rms_norm_eps)
        self.config = config

    def _rope(
        self, positions: Int[Array, "3 b t"]
    ) -> tuple[Float[Array, "b t half"], Float[Array, "b t half"]]:
        c = self.config
        return mrope(positions, c.head_dim, c.rope_theta, c.axis_of_pair)

    def _parts(self, x: Float[Array, "b t w"]) -> tuple[Float[Array, "b t d"], list[Float[Array, "b t d"]]]:
        """x [b, t, (1 + k) d] -> (embeddings [b, t, d], list of k features [b, t, d])."""
        first, *features = jnp.split(x, x.shape[-1] // self.config.hidden_size, axis=-1)
        return first, features

    def __call__(
        self, x: Float[Array, "b t w"], positions: Int[Array, "3 b t"], segment_ids: Int[Array, "b t"]
    ) -> Float[Array, "b t d"]:
        """x [b, t, (1 + k) d], positions [3, b, t], segment_ids [b, t] (0 = padding) -> [b, t, d], normed.

        With context parallelism tokens come, and go, in the order of `context_parallel.balanced`.
        """
        x, features = self._parts(x)
        inputs = (positions, segment_ids, *([jnp.stack(features)] if features else []))
        if token_shards(self.config) == 1:
            x, attend = constrain(x, self.layers.act_btd), partial(self_attention, causal=True)
            return self.norm(self._scan(self.layers, attend, None, x, *inputs))
        graphdef, weights = nnx.split(self.layers)

        def run(weights, *arguments):
            *arrays, gather = arguments
            return self._scan(nnx.merge(graphdef, weights), context_attention, gather, *arrays)

        own = layout("training").own_btd
        specs = (own, P(None, *own), own, P(None, *own))[: 1 + len(inputs)]
        return self.norm(by_device(run, weights, (x, *inputs), specs, self.config.dtype))

    def _scan(self, layers, attend, gather, x, positions, segment_ids, features=None):
        """All layers; features [k, b, t, d] are added to the outputs of the first k."""
        c, rope = self.config, self._rope(positions)
        attend = partial(attend, segment_ids=segment_ids, backend=c.attention)

        def apply(layer, x, i):
            x = layer(x, rope, attend)
            if features is None:
                return x
            return jax.lax.cond(i < len(features), lambda x: x + features[i], lambda x: x, x)

        return scan_layers(
            layers,
            apply,
            x,
            None if features is None else jnp.arange(c.num_layers),
            remat=c.remat,
            unroll=min(c.scan_unroll, c.num_layers),
            gather=gather,
        )

    def apply_layers(
        self, x: Float[Array, "b t w"], positions: Int[Array, "3 b t"], attend: Callable
    ) -> Float[Array, "b t d"]:
        """The layers one after another; see `VisionLanguageModel.apply_layers`."""
        rope, (x, features) = self._rope(positions), self._parts(x)
        for layer, added in zip_longest(unstack(self.layers, self.config.num_layers), features):
            x = layer(x, rope, attend) if added is None else layer(x, rope, attend) + added
        return x

    def extend(
        self,
        x: Float[Array, "b t w"],
        positions: Int[Array, "3 b t"],
        valid: Bool[Array, "b t"],
        cache: KVCache,
        layers: Sequence[DecoderLayer] | None = None,
    ) -> tuple[Float[Array, "b t d"], KVCache]:
        """Reads new tokens into the cache; see `VisionLanguageModel.extend`."""
        layers = unstack(self.layers, self.config.num_layers) if layers is None else layers
        rope, (x, features) = self._rope(positions), self._parts(x)
        slots = write_slots(cache.length, valid, cache.max_len)
        visible = cache.length[:, None] + 1 + jnp.arange(x.shape[1])
        keys, values = list(cache.k), list(cache.v)
        for i, layer in enumerate(layers):

            def attend(q, k, v, i=i):
                keys[i], values[i] = write(keys[i], k, slots), write(values[i], v, slots)
                return cached_attention(q, keys[i], values[i], visible, backend=self.config.attention)

            x = layer(x, rope, attend)
            if i < len(features):
                x = x + features[i]
        length = cache.length + valid.sum(axis=1, dtype=jnp.int32)
        return self.norm(x), KVCache(tuple(keys), tuple(values), length)
