"""Weights in the layout that sampling reads."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vilasr_jax.models import ModelConfig
from vilasr_jax.models.params import decoder_layers, is_norm, with_decoder_layers
from vilasr_jax.models.sharding import layout, param_shardings
from vilasr_jax.parallel import host_mesh
from vilasr_jax.parallel.memory import with_shardings


class SamplingWeights(NamedTuple):
    """Each decoder layer has arrays of its own: a loop over tokens would copy a stack's slices."""

    rest: Any  # all weights, with decoder stacks of 0 layers
    layers: tuple[Any, ...]


class SamplingLayout:
    """Reshards weights from any layout to the one of sampling, on the devices, in one compiled call.

    Sampling reads every weight at each token: matrices are cast to the compute dtype (norms are used in
    float32 and not cast), gathered over data and fsdp, split over model alone, and unstacked by layers.

    Args:
      config: of the model.
      mesh: of the devices of all hosts.
      process: index of the host that samples; None: this process.

    Raises:
      ConfigError: the model axis reaches over several hosts.
    """

    def __init__(self, config: ModelConfig, mesh: Mesh, process: int | None = None):
        self.config, self.mesh, self.host = config, mesh, host_mesh(mesh, process)
        self._reshard: Any = None  # compiled once

    def __call__(self, params: Any) -> SamplingWeights:
        """The weights on the host's devices; those that are laid out already are returned as they are.

        Of several processes all must call it, with weights that are laid out on the mesh of them all.
        """
        if isinstance(params, SamplingWeights):
            return params
        if self._reshard is None:
            self._reshard = jax.jit(self._laid_out, out_shardings=self.shardings(params, self.mesh))
        laid_out = self._reshard(params)
        return laid_out if self.host is self.mesh else jax.tree.map(self._local, laid_out)

    def abstract(self, params: Any, mesh: Mesh | None = None) -> SamplingWeights:
        """Shapes, dtypes and shardings of what a call returns, on the host's devices or on all of `mesh`."""
        if isinstance(params, SamplingWeights):
            return params
        places = self.shardings(params, self.host if mesh is None else mesh)
        return with_shardings(jax.eval_shape(self._laid_out, params), places)

    def shardings(self, params: Any, mesh: Mesh) -> SamplingWeights:
        """The `NamedSharding` of each array on `mesh`; `params` may be shapes alone."""
        rest = param_shardings(params, mesh, layout("rollout"))
        layer = jax.tree.map(lambda stack: NamedSharding(mesh, P(*stack.spec[1:])), decoder_layers(rest))
        return SamplingWeights(rest, (layer,) * self.config.num_layers)

    def _laid_out(self, params: Any) -> SamplingWeights:
        params = jax.tree_util.tree_map_with_path(self._cast, params)
        stack = decoder_layers(params)
        layers = [jax.tree.map(lambda x, i=i: x[i], stack) for i in range(self.config.num_layers)]
        rest = with_decoder_layers(params, jax.tree.map(lambda x: x[:0], stack))
        return SamplingWeights(rest, tuple(layers))

    def _cast(self, path: Any, x: jax.Array) -> jax.Array:
        return x if is_norm(path) else x.astype(self.config.dtype)

    def _local(self, leaf: jax.Array) -> jax.Array:
        """This process's view of an array that is not split between processes; nothing is copied."""
        assert isinstance(leaf.sharding, NamedSharding)
        sharding = NamedSharding(self.host, leaf.sharding.spec)
        return jax.make_array_from_single_device_arrays(
            leaf.shape, sharding, [shard.data for shard in leaf.addressable_shards]
        )
