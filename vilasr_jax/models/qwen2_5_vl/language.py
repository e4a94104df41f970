"""The language model: a decoder with grouped-query attention, M-RoPE and SwiGLU."""

from collections.abc import Callable, Sequence
from functools import partial

import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from vilasr_jax.models.qwen2_5_vl.attention import cached_attention, context_attention, self_attention
from vilasr_jax.models.qwen2_5_vl.cache import KVCache, write, write_slots
from vilasr_jax.models.qwen2_5_vl.config import ModelConfig
from vilasr_jax.models.qwen2_5_vl.context_parallel import by_device, devices
from vilasr_jax.models.qwen2_5_vl.layers import Embedding, Heads, Linear, RMSNorm, SwiGLU
from vilasr_jax.models.qwen2_5_vl.rope import mrope
from vilasr_jax.models.qwen2_5_vl.stack import ATTENTION, scan_layers, unstack
from vilasr_jax.models.sharding import constrain, layout


class DecoderLayer(nnx.Module):
    """All layers' weights (leading axis: layer); called on one slice."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        d, h, n = config.hidden_size, config.head_dim, config.num_layers
        self.input_layernorm = RMSNorm(d, config, eps=config.rms_norm_eps, layers=n)
        self.q_proj = Linear(d, config.num_heads * h, config, bias=True, rngs=rngs, layers=n)
        self.k_proj = Linear(d, config.num_kv_heads * h, config, bias=True, rngs=rngs, layers=n)
        self.v_proj = Linear(d, config.num_kv_heads * h, config, bias=True, rngs=rngs, layers=n)
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
        q, k, v = (self.heads.split(y, proj)[0] for proj in (self.q_proj, self.k_proj, self.v_proj))
        q, k = self.heads.rotate(q, rope), self.heads.rotate(k, rope)
        out = attend(*(checkpoint_name(a, ATTENTION) for a in (q, k, v)))
        x = checkpoint_name(x + constrain(self.heads.join(out, self.o_proj), self.act_btd), ATTENTION)
        return x + constrain(self.mlp(self.post_attention_layernorm(x)), self.act_btd)


class LanguageModel(nnx.Module):
    """Token table, decoder layers and final norm."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, config, rngs=rngs)
        self.layers = DecoderLayer(config, rngs=rngs)
        self.norm = RMSNorm(config.hidden_size, config, eps=config.rms_norm_eps)
        self.config = config

    def _rope(
        self, positions: Int[Array, "3 b t"]
    ) -> tuple[Float[Array, "b t half"], Float[Array, "b t half"]]:
        c = self.config
        return mrope(positions, c.head_dim, c.rope_theta, c.mrope_section)

    def __call__(
        self, x: Float[Array, "b t d"], positions: Int[Array, "3 b t"], segment_ids: Int[Array, "b t"]
    ) -> Float[Array, "b t d"]:
        """x [b, t, d], positions [3, b, t], segment_ids [b, t] (0 = padding) -> hidden [b, t, d], normed.

        With context parallelism tokens come, and go, in the order of `context_parallel.balanced`.
        """
        if devices(self.config) == 1:
            x, attend = constrain(x, self.layers.act_btd), partial(self_attention, causal=True)
            return self.norm(self._scan(self.layers, x, positions, segment_ids, attend))
        graphdef, weights = nnx.split(self.layers)

        def run(weights, x, positions, segment_ids, gather):
            layers = nnx.merge(graphdef, weights)
            return self._scan(layers, x, positions, segment_ids, context_attention, gather)

        arrays, own = (x, positions, segment_ids), layout("training").own_btd
        return self.norm(by_device(run, weights, arrays, (own, P(None, *own), own), self.config.dtype))

    def _scan(self, layers, x, positions, segment_ids, attend, gather=None):
        c, rope = self.config, self._rope(positions)
        attend = partial(attend, segment_ids=segment_ids, backend=c.attention)
        return scan_layers(
            layers,
            lambda layer, x, _: layer(x, rope, attend),
            x,
            remat=c.remat,
            unroll=min(c.scan_unroll, c.num_layers),
            gather=gather,
        )

    def apply_layers(
        self, x: Float[Array, "b t d"], positions: Int[Array, "3 b t"], attend: Callable
    ) -> Float[Array, "b t d"]:
        """The layers one after another; see `Qwen2_5_VL.apply_layers`."""
        rope = self._rope(positions)
        for layer in unstack(self.layers, self.config.num_layers):
            x = layer(x, rope, attend)
        return x

    def extend(
        self,
        x: Float[Array, "b t d"],
        positions: Int[Array, "3 b t"],
        valid: Bool[Array, "b t"],
        cache: KVCache,
        layers: Sequence[DecoderLayer] | None = None,
    ) -> tuple[Float[Array, "b t d"], KVCache]:
        """Reads new tokens into the cache; see `Qwen2_5_VL.extend`."""
        layers = unstack(self.layers, self.config.num_layers) if layers is None else layers
        rope = self._rope(positions)
        slots = write_slots(cache.length, valid, cache.max_len)
        visible = cache.length[:, None] + 1 + jnp.arange(x.shape[1])
        keys, values = list(cache.k), list(cache.v)
        for i, layer in enumerate(layers):

            def attend(q, k, v, i=i):
                keys[i], values[i] = write(keys[i], k, slots), write(values[i], v, slots)
                return cached_attention(q, keys[i], values[i], visible, backend=self.config.attention)

            x = layer(x, rope, attend)
        length = cache.length + valid.sum(axis=1, dtype=jnp.int32)
        return self.norm(x), KVCache(tuple(keys), tuple(values), length)
