"""Weights moved between the layouts of training and of rollouts, on the devices."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from vilasr_jax.models.params import is_norm
from vilasr_jax.models.sharding import layout, param_shardings


def to_rollout(params: Any, mesh: Mesh, dtype: str) -> Any:
    """The parameters as the rollout engine takes them, on this process's part of `mesh`.

    Split over `model` alone, and matrices in the dtype that computes (norms keep theirs: they are used in
    float32). Nothing passes through the host; where nothing has to change, nothing is copied.

    Args:
      params: the model's parameters, in any layout on `mesh`.
      mesh: the whole mesh.
      dtype: of the model's computations.

    Returns:
      The parameters on `mesh.local_mesh`, the devices of this process.
    """
    places = param_shardings(params, mesh, layout("rollout"))
    done = all(
        leaf.sharding.is_equivalent_to(place, leaf.ndim) and leaf.dtype == dtype
        for leaf, place in zip(jax.tree.leaves(params), jax.tree.leaves(places), strict=True)
    )
    params = params if done else _relaid(params, mesh, dtype)
    return params if jax.process_count() == 1 else jax.tree.map(lambda leaf: _local(leaf, mesh), params)


@partial(jax.jit, static_argnums=(1, 2))
def _relaid(params: Any, mesh: Mesh, dtype: str) -> Any:
    def cast(path, leaf):
        return leaf if is_norm(path) else leaf.astype(dtype)

    places = param_shardings(params, mesh, layout("rollout"))
    return jax.lax.with_sharding_constraint(jax.tree_util.tree_map_with_path(cast, params), places)


def _local(leaf: jax.Array, mesh: Mesh) -> jax.Array:
    """This process's copy of an array that is not split between processes; its buffers are shared."""
    sharding = NamedSharding(mesh.local_mesh, leaf.sharding.spec)
    return jax.make_array_from_single_device_arrays(
        leaf.shape, sharding, [shard.data for shard in leaf.addressable_shards]
    )
