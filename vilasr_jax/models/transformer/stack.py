"""Running a stack of equal layers whose weights are stacked along a leading layer axis."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, PyTree

from vilasr_jax.models.sharding import constrain, partition_specs
from vilasr_jax.models.transformer.remat import POLICIES

Layer = TypeVar("Layer", bound=nnx.Module)


def scan_layers(
    stack: nnx.Module,
    apply: Callable[[Any, Any, Any], Any],
    x: PyTree[Array],
    per_layer: PyTree[Array | np.ndarray] | None = None,
    *,
    remat: str = "none",
    unroll: int = 1,
    gather: Callable[[Any], Any] | None = None,
) -> PyTree[Array]:
    """Applies `apply(layer, x, per_layer[i]) -> x` for each layer in turn with `jax.lax.scan`.

    Args:
      stack: module whose weights all have a leading layer axis.
      apply: one layer's work; `layer` is `stack` with layer i's slice of every weight.
      x: activations, a pytree of fixed shapes.
      per_layer: pytree of arrays with a leading layer axis, or None.
      remat: what the backward pass recomputes, one of `config.REMAT_POLICIES`.
      unroll: layers written out in each step of the loop.
      gather: makes one layer's weights ready for use; by default the compiler does, as it sees fit.

    Returns:
      x after the last layer.
    """
    graphdef, state = nnx.split(stack)
    specs = jax.tree.map(lambda spec: P(*spec[1:]), partition_specs(state))  # of one layer's weights

    def body(x, inputs):
        layer_state, extra = inputs
        # Changes no layout in the forward pass; in the backward pass each layer's gradient is summed directly
        # into its shards.
        layer_state = gather(layer_state) if gather else jax.tree.map(constrain, layer_state, specs)
        return apply(nnx.merge(graphdef, layer_state), x, extra), None

    if remat != "none":
        body = jax.checkpoint(body, policy=POLICIES[remat], prevent_cse=False)
    return jax.lax.scan(body, x, (state, per_layer), unroll=unroll)[0]


def unstack(stack: Layer, count: int) -> list[Layer]:
    """The layers of a stack as modules of their own, for code with state for each layer."""
    graphdef, state = nnx.split(stack)
    return [nnx.merge(graphdef, jax.tree.map(lambda a, i=i: a[i], state)) for i in range(count)]
