"""What the vision towers of families with this decoder have in common."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vilasr_jax.models.sharding import constrain, layout
from vilasr_jax.models.transformer.config import TransformerConfig
from vilasr_jax.models.transformer.layers import Heads, Linear


class VisionBlock(nnx.Module):
    """One block of a tower.

    Built with the weights of all blocks stacked (leading axis: block); `scan_layers` calls it with one slice.

    Args:
      config: of the model.
      norm: creates a norm over the tower's width.
      mlp: creates the MLP.
    """

    def __init__(
        self,
        config: TransformerConfig,
        norm: Callable[[], nnx.Module],
        mlp: Callable[[], nnx.Module],
        *,
        rngs: nnx.Rngs,
    ):
        v, n = config.vision, config.vision.depth
        self.norm1: Any = norm()
        self.qkv = Linear(v.hidden_size, 3 * v.hidden_size, config, bias=True, rngs=rngs, layers=n)
        self.proj = Linear(v.hidden_size, v.hidden_size, config, bias=True, rngs=rngs, layers=n)
        self.norm2: Any = norm()
        self.mlp: Any = mlp()
        self.heads = Heads(v.head_dim, config.attention, fill=True)

    def __call__(
        self, x: Float[Array, "r p d"], rope: Sequence[Float[Array, "r p half"]], attend: Callable[..., Any]
    ) -> Float[Array, "r p d"]:
        """x [r, p, d], rope (cos, sin) [r, p, h/2] -> [r, p, d]; `attend` gets q, k, v [r, p, n, h]."""
        q, k, v = self.heads.project(self.norm1(x), self.qkv, 3)
        out = attend(self.heads.rotate(q, rope), self.heads.rotate(k, rope), v)
        x = x + self.heads.merge(out, self.proj)
        return x + self.mlp(self.norm2(x))


def merge(x: Float[Array, "r m w"], into: Linear, out: Linear) -> Float[Array, "r m d"]:
    """The neighbouring patches of a token side by side [r, m, w] -> tokens [r, m, d]."""
    return out(gelu(constrain(into(x), layout("training").act_rpd), approximate=False))


def gelu(x: Float[Array, "*rows d"], *, approximate: bool) -> Float[Array, "*rows d"]:
    """GELU, computed in float32."""
    return jax.nn.gelu(x.astype(jnp.float32), approximate=approximate).astype(x.dtype)
