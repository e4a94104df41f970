"""Context parallelism: a row's tokens are sharded over the mesh's model axis (arXiv 2411.01783).

Each device computes full layers for its own tokens: it gathers a layer's weights when it uses them, and
the keys and values of the other tokens. Causal attention costs more for later tokens, so each device
holds a part of both ends:

    tokens   0 1 2 3 4 5 6 7      two devices: 0 1 6 7 and 2 3 4 5
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int, Shaped

from vilasr_jax.models.attention_backends import attention_backend
from vilasr_jax.models.sharding import constrain, fitted, layout, partition_specs

AXIS = "model"


def token_shards(config: Any) -> int:
    """Number of devices that a row's tokens are sharded over, on the caller's mesh; 1 in sampling."""
    mesh = jax.sharding.get_abstract_mesh()
    if not config.context_parallel or mesh.empty or mesh.manual_axes:
        return 1
    return mesh.shape[AXIS]


def balanced(t: int, n: int) -> Int[np.ndarray, " t"]:
    """The order in which n devices hold t tokens, one device after the other; 2 n must divide t.

    >>> balanced(8, 2).tolist()
    [0, 1, 6, 7, 2, 3, 4, 5]
    """
    return np.arange(t).reshape(2 * n, -1)[_parts(n)].reshape(-1)


def _parts(n: int) -> list[int]:
    return [part for i in range(n) for part in (i, 2 * n - 1 - i)]


class Split:
    """Rows of `t` tokens, padded and sharded over n devices."""

    def __init__(self, t: int, n: int, backend: str):
        self.t, self.n = t, n
        self.padding = -t % (2 * n * attention_backend(backend).token_multiple)
        self.order = balanced(t + self.padding, n)

    def divide(self, x: Shaped[Array, "*rows t"], fill: int = 0) -> Shaped[Array, "*rows padded"]:
        """[..., t] in the row's order -> [..., padded] in that of the devices; padding is `fill`."""
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, self.padding)], constant_values=fill)
        return x[..., self.order]

    def unite(self, x: Float[Array, "b padded d"]) -> Float[Array, "b t d"]:
        """[b, padded, d] in the devices' order -> [b, t, d] in the row's, each row on one device."""
        return in_order(constrain(x, layout("training").act_btd), self.n)[:, : self.t]


def in_order(x: Shaped[Array, "b t ..."], n: int) -> Shaped[Array, "b t ..."]:
    """[b, t, ...] from the order of `balanced` back to the row's."""
    parts = jnp.split(x, 2 * n, axis=1)
    return jnp.concatenate([parts[i] for i in np.argsort(_parts(n))], axis=1)


def gather_tokens(x: Shaped[Array, "b own ..."]) -> Shaped[Array, "b t ..."]:
    """Inside `by_device`: a device's [b, own, ...] -> its rows' tokens in their order [b, t, ...]."""
    return in_order(_gathered(x, AXIS, 1), jax.lax.axis_size(AXIS))


def by_device(run: Callable, layers: Any, arrays: tuple, specs: tuple, dtype: Any) -> Any:
    """`run(layers, *arrays, gather) -> arrays like arrays[0]` by each device on its own part.

    Args:
      run: gets the device's part of each array; `gather` gathers the weights of one layer.
      layers: stacked weights, laid out as `sharding.partition_specs` says.
      arrays: activations and what belongs to them.
      specs: the layout of each; the first also of the result.
      dtype: of the weights when they are used, and while they are gathered.
    """
    mesh = jax.sharding.get_abstract_mesh()
    shards = jax.tree.map(lambda leaf, spec: fitted(spec, leaf.shape, mesh), layers, partition_specs(layers))
    specs = tuple(fitted(spec, x.shape, mesh) for spec, x in zip(specs, arrays, strict=True))

    def gather(layer: Any) -> Any:
        return jax.tree.map(lambda leaf, spec: _gather_weight(leaf, P(*spec[1:]), dtype), layer, shards)

    def own(layers, *arrays):
        return run(layers, *arrays, gather)

    call = jax.shard_map(own, in_specs=(shards, *specs), out_specs=specs[0], check_vma=False)
    return call(layers, *arrays)


def _gather_weight(weight: jax.Array, spec: P, dtype: Any) -> jax.Array:
    """Gathers over `AXIS` first: it has few devices, and the parts are still small."""
    for at, axes in sorted(enumerate(spec), key=lambda dim: dim[1] != AXIS):
        if axes:
            weight = _gathered(weight.astype(dtype), axes, at)
    return weight


def _gathered(x: jax.Array, axes: Any, at: int) -> jax.Array:
    """Gathers axis `at`, as rows of a matrix: otherwise XLA sums gradients unsharded, then splits them."""
    rows = jnp.moveaxis(x, at, 0)
    full = jax.lax.all_gather(rows.reshape(rows.shape[0], -1), axes, tiled=True)
    return jnp.moveaxis(full.reshape(-1, *rows.shape[1:]), 0, at)
