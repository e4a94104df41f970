"""Parameters as sampling reads them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vilasr_jax.models import ModelConfig
from vilasr_jax.models.params import decoder_layers, is_norm, with_decoder_layers
from vilasr_jax.models.sharding import layout, param_shardings


class SamplingParams(NamedTuple):
    """Each decoder layer has arrays of its own: a loop over tokens would copy a stack's slices."""

    rest: Any  # all, with decoder stacks of 0 layers
    layers: tuple[Any, ...]


class Placement:
    """Lays parameters out for sampling, on the devices of `mesh`.

    Every weight is read at each token: matrices are cast to the compute dtype once, gathered over data and
    fsdp, split over model alone, and no longer stacked by layers.
    """

    def __init__(self, config: ModelConfig, mesh: Mesh):
        self.config, self.mesh = config, mesh
        self._split: Any = None  # compiled once

    def __call__(self, params: Any) -> SamplingParams:
        """The parameters for the compiled calls."""
        if self._split is None:
            places = param_shardings(params, self.mesh, layout("rollout"))
            one = jax.tree.map(
                lambda place: NamedSharding(self.mesh, P(*place.spec[1:])), decoder_layers(places)
            )
            split = SamplingParams(places, (one,) * self.config.num_layers)
            self._split = jax.jit(self._laid_out, out_shardings=split)
        return self._split(params)

    def _laid_out(self, params: Any) -> SamplingParams:
        params = jax.tree_util.tree_map_with_path(self._cast, params)
        stack = decoder_layers(params)
        layers = [jax.tree.map(lambda x, i=i: x[i], stack) for i in range(self.config.num_layers)]
        rest = with_decoder_layers(params, jax.tree.map(lambda x: x[:0], stack))
        return SamplingParams(rest, tuple(layers))

    def _cast(self, path: Any, x: jax.Array) -> jax.Array:
        return x if is_norm(path) else x.astype(self.config.dtype)
