"""The language model: a decoder with grouped-query attention, M-RoPE and SwiGLU."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from vilasr_jax.models.qwen2_5_vl.attention import cached_attention, self_attention
from vilasr_jax.models.qwen2_5_vl.cache import KVCache, write, write_slots
from vilasr_jax.models.qwen2_5_vl.config import ModelConfig
from vilasr_jax.models.qwen2_5_vl.layers import Embedding, Linear, RMSNorm, SwiGLU
from vilasr_jax.models.qwen2_5_vl.rope import mrope, rotate
from vilasr_jax.models.qwen2_5_vl.sharding import constrain, layout
from vilasr_jax.models.qwen2_5_vl.stack import ATTENTION, scan_layers, unstack


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
            d, config.intermediate_size, config, bias=False, act_rf=layout("training").mlp_act_rf, rngs=rngs,
            layers=n,
        )  # fmt: skip
        self.head_dim = h
        self.act_btd = layout("training", sequence_parallel=config.sequence_parallel).act_btd
        self.gathered_btd = layout("training").act_btd  # where each device needs all tokens of its rows

    def __call__(self, x, rope, attend: Callable):
        """x [b, t, d] -> [b, t, d]; `attend(q [b,t,n,h], k [b,t,kv,h], v) -> [b,t,n,h]` gets them rotated."""
        b, t, _ = x.shape
        y = constrain(self.input_layernorm(x), self.gathered_btd)
        q, k, v = (
            proj(y).reshape(b, t, -1, self.head_dim) for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k, v = (checkpoint_name(a, ATTENTION) for a in (rotate(q, rope), rotate(k, rope), v))
        out = attend(q, k, v)
        y = constrain(self.o_proj(out.reshape(b, t, -1)), self.gathered_btd)
        x = checkpoint_name(constrain(x + y, self.act_btd), ATTENTION)
        y = self.mlp(constrain(self.post_attention_layernorm(x), self.gathered_btd))
        return constrain(x + constrain(y, self.gathered_btd), self.act_btd)


class LanguageModel(nnx.Module):
    """Token table, decoder layers and final norm."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, config, rngs=rngs)
        self.layers = DecoderLayer(config, rngs=rngs)
        self.norm = RMSNorm(config.hidden_size, config, eps=config.rms_norm_eps)
        self.config = config

    def _rope(self, positions):
        c = self.config
        return mrope(positions, c.head_dim, c.rope_theta, c.mrope_section)

    def __call__(self, x, positions, segment_ids):
        """x [b, t, d], positions [3, b, t], segment_ids [b, t] (0 = padding) -> hidden [b, t, d], normed."""
        c, rope = self.config, self._rope(positions)

        def attend(q, k, v):
            return self_attention(q, k, v, segment_ids, causal=True, backend=c.attention)

        x = scan_layers(
            self.layers, lambda layer, x, _: layer(x, rope, attend), constrain(x, self.layers.act_btd),
            remat=c.remat, unroll=min(c.scan_unroll, c.num_layers),
        )  # fmt: skip
        return self.norm(x)

    def extend(self, x, positions, valid, cache: KVCache, layers: list[DecoderLayer] | None = None) -> tuple:
        """Reads new tokens into the cache; see `Qwen2_5_VL.extend`."""
        layers = unstack(self.layers, self.config.num_layers) if layers is None else layers
        rope = self._rope(positions)
        slots = write_slots(cache.length, valid, cache.max_len)
        visible = cache.length[:, None] + 1 + jnp.arange(x.shape[1])
        keys, values = list(cache.k), list(cache.v)
        for i, layer in enumerate(layers):

            def attend(q, k, v, i=i):
                keys[i], values[i] = write(keys[i], k, slots), write(values[i], v, slots)
                return cached_attention(q, keys[i], values[i], visible)

            x = layer(x, rope, attend)
        length = cache.length + valid.sum(axis=1, dtype=jnp.int32)
        return self.norm(x), KVCache(tuple(keys), tuple(values), length)
