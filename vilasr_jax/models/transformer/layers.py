"""Building blocks of both towers: linear maps, norms, SwiGLU, the token table.

Weights of repeated layers are stacked: built with `layers=n`, every weight has a leading axis of n, and a
layer is applied through a module whose weights are one slice of it (see `stack.py`).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from vilasr_jax.models.attention_backends import attention_backend
from vilasr_jax.models.products import AdaptedMatrix, gather_rows, matmul_precision, multiply, unpacked
from vilasr_jax.models.sharding import constrain, layout
from vilasr_jax.models.transformer.config import TransformerConfig
from vilasr_jax.models.transformer.remat import MLP
from vilasr_jax.models.transformer.rope import rotate


def _stacked(layers: int | None, *shape: int) -> tuple[int, ...]:
    return shape if layers is None else (layers, *shape)


def random_normal(key: jax.Array, shape: tuple[int, ...], std: float, dtype) -> jax.Array:
    """Normal numbers of a standard deviation; the same to the bit whether compiled with others or alone."""
    unit = jax.random.normal(key, shape, jnp.float32)
    return (jax.lax.optimization_barrier(unit) * std).astype(dtype)  # else XLA merges two factors into one


class Linear(nnx.Module):
    """x [..., d_in] -> x @ kernel (+ bias) [..., d_out]; kernel is [d_in, d_out], torch's transposed."""

    def __init__(
        self,
        d_in: int,
        d_out: int,
        config: TransformerConfig,
        *,
        bias: bool,
        rngs: nnx.Rngs,
        layers: int | None = None,
    ):
        std = d_in**-0.5 if config.init_std is None else config.init_std
        kernel = random_normal(rngs.params(), _stacked(layers, d_in, d_out), std, config.param_dtype)
        self.kernel = nnx.Param(kernel)
        self.bias = nnx.Param(jnp.zeros(_stacked(layers, d_out), config.param_dtype)) if bias else None
        self.dtype = config.dtype

    def __call__(self, x: Float[Array, "*rows d_in"]) -> Float[Array, "*rows d_out"]:
        rows = x.astype(self.dtype).reshape(-1, x.shape[-1])  # one matrix: 3x faster backward on CPU
        y = multiply(rows, self.kernel.get_value())
        y = y if self.bias is None else y + self.bias[...].astype(self.dtype)
        return y.reshape(*x.shape[:-1], -1)


class Heads:
    """Linear maps into and out of attention heads of width h, [b, t, n, h].

    For an opaque kernel the projections write each head's tokens contiguously, as the kernel reads them. With
    `fill` they also write heads as wide as it reads them, each half of the weights padded with zeros:

        [h/2 | 0 | h/2 | 0]

    so that `rope` still pairs the halves. Results are unchanged, and nothing is moved or padded between a
    projection and the kernel.

    Args:
      head_dim: h.
      attention: name of the attention backend.
      fill: pad heads to the backend's `head_dim_multiple`.
    """

    def __init__(self, head_dim: int, attention: str, *, fill: bool = False):
        backend = attention_backend(attention)
        self.head_dim, self.plain = head_dim, not backend.opaque_kernel
        self.padding = -head_dim % backend.head_dim_multiple if fill else 0

    def project(
        self, x: Float[Array, "b t d"], linear: Linear, parts: int = 1
    ) -> list[Float[Array, "b t n padded"]]:
        """Projects x [b, t, d] to heads: `parts` arrays [b, t, n, h + padding]."""
        if self._by_matrix(linear):
            y = linear(x).reshape(*x.shape[:2], -1, self.head_dim)
            return jnp.split(y, parts, axis=2)
        x = x.astype(linear.dtype)
        kernels = jnp.split(self._wide(unpacked(linear.kernel.get_value(), x.dtype), 1), parts, axis=1)
        precision = matmul_precision(x.dtype)
        heads = [jnp.einsum("btd,dnh->bnth", x, w, precision=precision) for w in kernels]
        if linear.bias is not None:
            biases = jnp.split(self._wide(linear.bias[...].astype(x.dtype), 0), parts)
            heads = [y + c[:, None] for y, c in zip(heads, biases, strict=True)]
        return [y.swapaxes(1, 2) for y in heads]

    def merge(self, x: Float[Array, "b t n padded"], linear: Linear) -> Float[Array, "b t d"]:
        """Projects heads [b, t, n, h + padding] back to [b, t, d]."""
        if self._by_matrix(linear):
            return linear(x.reshape(*x.shape[:2], -1))
        kernel = self._wide(unpacked(linear.kernel.get_value(), x.dtype), 0)
        y = jnp.einsum("bnth,nhd->btd", x.swapaxes(1, 2), kernel, precision=matmul_precision(x.dtype))
        return y if linear.bias is None else y + linear.bias[...].astype(x.dtype)

    def rotate(
        self, x: Float[Array, "b t n padded"], rope: Sequence[Float[Array, "b t half"]]
    ) -> Float[Array, "b t n padded"]:
        """`rope.rotate` of x [b, t, n, h + padding]."""
        rope = [jnp.pad(a, ((0, 0), (0, 0), (0, self.padding // 2))) for a in rope]
        return rotate(x, rope, by_matrix=not self.plain)

    def _by_matrix(self, linear: Linear) -> bool:
        """Whether heads are cut from one product; of an adapted matrix, so that its factors stay apart."""
        return self.plain or (not self.padding and isinstance(linear.kernel.get_value(), AdaptedMatrix))

    def _wide(self, weight: jax.Array, axis: int) -> jax.Array:
        """[.., n * h, ..] -> [.., n, h + padding, ..] along `axis`."""
        before, after = weight.shape[:axis], weight.shape[axis + 1 :]
        halves = weight.reshape(*before, -1, 2, self.head_dim // 2, *after)
        padding = [(0, 0)] * (axis + 2) + [(0, self.padding // 2)] + [(0, 0)] * len(after)
        return jnp.pad(halves, padding).reshape(*before, -1, self.head_dim + self.padding, *after)


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x^2) + eps) * scale over the last axis, the division in float32 (arXiv 1910.07467)."""

    def __init__(self, dim: int, config: TransformerConfig, *, eps: float, layers: int | None = None):
        self.scale = nnx.Param(jnp.ones(_stacked(layers, dim), config.param_dtype))
        self.eps = eps
        self.dtype = config.dtype

    def __call__(self, x: Float[Array, "*rows d"]) -> Float[Array, "*rows d"]:
        x32 = x.astype(jnp.float32)
        x32 = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.eps)
        return (x32 * self.scale[...].astype(jnp.float32)).astype(self.dtype)


class LayerNorm(nnx.Module):
    """(x - mean) / sqrt(variance + eps) * scale + bias over the last axis, in float32 (arXiv 1607.06450)."""

    def __init__(self, dim: int, config: TransformerConfig, *, eps: float, layers: int | None = None):
        self.scale = nnx.Param(jnp.ones(_stacked(layers, dim), config.param_dtype))
        self.bias = nnx.Param(jnp.zeros(_stacked(layers, dim), config.param_dtype))
        self.eps = eps
        self.dtype = config.dtype

    def __call__(self, x: Float[Array, "*rows d"]) -> Float[Array, "*rows d"]:
        x32 = x.astype(jnp.float32)
        x32 = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        x32 = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.eps)
        return (x32 * self.scale[...].astype(jnp.float32) + self.bias[...].astype(jnp.float32)).astype(
            self.dtype
        )


def _silu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return jax.nn.silu(x.astype(jnp.float32)).astype(x.dtype)


class SwiGLU(nnx.Module):
    """down(silu(gate(x)) * up(x)) (arXiv 2002.05202)."""

    def __init__(
        self,
        dim: int,
        hidden: int,
        config: TransformerConfig,
        *,
        bias: bool,
        act_rf: P,
        rngs: nnx.Rngs,
        layers: int | None = None,
    ):
        self.act_rf = act_rf  # sharding of its hidden rows [rows, hidden]
        self.gate_proj = Linear(dim, hidden, config, bias=bias, rngs=rngs, layers=layers)
        self.up_proj = Linear(dim, hidden, config, bias=bias, rngs=rngs, layers=layers)
        self.down_proj = Linear(hidden, dim, config, bias=bias, rngs=rngs, layers=layers)

    def __call__(self, x: Float[Array, "*rows d"]) -> Float[Array, "*rows d"]:
        rows = x.reshape(-1, x.shape[-1])  # see Linear
        # Kept apart: TPUs would compute the product again for each block of the matrix products that read it.
        gate, up = jax.lax.optimization_barrier((self.gate_proj(rows), self.up_proj(rows)))
        gate, up = checkpoint_name(gate, MLP), checkpoint_name(up, MLP)
        hidden = jax.lax.optimization_barrier(constrain(_silu(gate) * up, self.act_rf))
        rows = self.down_proj(hidden)
        return rows.reshape(x.shape)


class Embedding(nnx.Module):
    """The token table [vocab, d]: ids [b, t] -> [b, t, d]."""

    def __init__(self, vocab_size: int, dim: int, config: TransformerConfig, *, rngs: nnx.Rngs):
        std = dim**-0.5 if config.init_std is None else config.init_std
        self.embedding = nnx.Param(random_normal(rngs.params(), (vocab_size, dim), std, config.param_dtype))
        self.dtype = config.dtype

    def __call__(self, ids: Int[Array, "b t"]) -> Float[Array, "b t d"]:
        places = layout("training")
        ids = constrain(ids, places.embed_ids_bt)
        x = gather_rows(self.embedding.get_value(), ids, self.dtype)
        return constrain(constrain(x, places.embed_act_btd), places.embed_rows_btd)
