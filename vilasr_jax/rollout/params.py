"""Parameters as sampling reads them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vilasr_jax.models.qwen2_5_vl import ModelConfig, layout, param_shardings


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
                lambda place: NamedSharding(self.mesh, P(*place.spec[1:])), places["language_model"]["layers"]
            )
            split = SamplingParams(places, (one,) * self.config.num_layers)
            self._split = jax.jit(self._laid_out, out_shardings=split)
        return self._split(params)

    def _laid_out(self, params: Any) -> SamplingParams:
        params = jax.tree_util.tree_map_with_path(self._cast, params)
        stack = params["language_model"]["layers"]
        layers = [jax.tree.map(lambda x, i=i: x[i], stack) for i in range(self.config.num_layers)]
        params["language_model"]["layers"] = jax.tree.map(lambda x: x[:0], stack)
        return SamplingParams(params, tuple(layers))

    def _cast(self, path: Any, x: jax.Array) -> jax.Array:
        norm = "scale" in jax.tree_util.keystr(path)  # they compute in float32
        return x if norm else x.astype(self.config.dtype)
