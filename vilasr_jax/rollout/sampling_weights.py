"""Weights in the layout that sampling reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vilasr_jax.models import ModelConfig
from vilasr_jax.models.params import (
    abstract,
    decoder_layers,
    is_decoder_layer,
    is_matrix,
    is_norm,
    is_token_table,
    path_names,
    with_decoder_layers,
)
from vilasr_jax.models.products import MatrixForm, matrix_form, pack
from vilasr_jax.models.sharding import layout, param_shardings
from vilasr_jax.parallel import host_mesh
from vilasr_jax.parallel.memory import with_shardings


class SamplingWeights(NamedTuple):
    """Each decoder layer has arrays of its own: a loop over tokens would copy a stack's slices."""

    rest: Any  # all weights, with decoder stacks of 0 layers
    layers: tuple[Any, ...]


@runtime_checkable
class WeightSource(Protocol):
    """Stored weights that are read a part at a time; `path` is a weight's ("lm_head/kernel")."""

    config: ModelConfig

    def block(self, path: str, index: tuple[slice, ...], shape: tuple[int, ...]) -> np.ndarray:
        """The values of `weight[index]`, where the weight has `shape`."""

    def layers(self, path: str, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        """The values of a stack [layer, ...] of `shape`, layer after layer."""


class SamplingLayout:
    """Brings weights from any layout, or from a file, to the one of sampling.

    Sampling reads every weight at each token: matrices are cast to the compute dtype or packed as
    `models.products` says (norms are used in float32 and not cast), gathered over data and fsdp, split over
    model alone, and unstacked by layers. On devices that is one compiled call; from a file each layer's
    weight is read, packed and placed before the next, so that little more than the result is in memory.

    Args:
      config: of the model.
      mesh: of the devices of all hosts.
      process: index of the host that samples; None: this process.
      weights: "int8", or "" for the compute dtype.

    Raises:
      ConfigError: the model axis reaches over several hosts.
    """

    def __init__(self, config: ModelConfig, mesh: Mesh, process: int | None = None, weights: str = ""):
        self.config, self.mesh, self.host = config, mesh, host_mesh(mesh, process)
        self.form: MatrixForm = matrix_form(weights, config.dtype, mesh.devices.flat[0].platform)
        self._reshard: Any = None  # compiled once
        self._compiled = jax.jit(partial(pack, form=self.form), static_argnames="per_row")

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

    def load(
        self, source: WeightSource, progress: Callable[[int, int], None] | None = None
    ) -> SamplingWeights:
        """The weights of `source` on the host's devices.

        Args:
          source: whose `config` is the layout's but for its dtypes.
          progress: called with the bytes read and their number.
        """
        part: Any
        tree: Any  # JAX does not export the type of a tree's structure
        leaves, tree = jax.tree_util.tree_flatten_with_path(abstract(source.config)[1])
        places = self.shardings(tree.unflatten([leaf for _, leaf in leaves]), self.host)
        total, done = sum(leaf.size * leaf.dtype.itemsize for _, leaf in leaves), 0

        def put(path: Any, values: np.ndarray, place: Any) -> Any:
            nonlocal done
            done += values.nbytes
            placed = jax.block_until_ready(jax.device_put(self._pack(path, values), place))
            if progress:
                progress(done, total)
            return placed

        part = jax.tree.structure(decoder_layers(tree.unflatten(range(len(leaves)))))
        rest: list[Any] = []
        layers: list[list[Any]] = [[] for _ in places.layers]  # the weights of each
        layer_places = iter(part.flatten_up_to(places.layers[0]))
        for (path, leaf), place in zip(leaves, tree.flatten_up_to(places.rest), strict=True):
            name = "/".join(key for key in path_names(path) if key != "value")
            if is_decoder_layer(path):
                none = jnp.zeros((0, *leaf.shape[1:]), leaf.dtype)
                rest.append(jax.device_put(self._packed(path, none), place))
                place = next(layer_places)
                for layer, values in zip(layers, source.layers(name, leaf.shape), strict=True):
                    layer.append(put(path, values, place))
            else:
                rest.append(put(path, source.block(name, (slice(None),) * leaf.ndim, leaf.shape), place))
        return SamplingWeights(tree.unflatten(rest), tuple(map(part.unflatten, layers)))

    def abstract(self, params: Any, mesh: Mesh | None = None) -> SamplingWeights:
        """Shapes, dtypes and shardings of what a call returns, on the host's devices or on all of `mesh`."""
        if isinstance(params, SamplingWeights):
            return params
        places = self.shardings(params, self.host if mesh is None else mesh)
        return with_shardings(jax.eval_shape(self._laid_out, params), places)

    def shardings(self, params: Any, mesh: Mesh) -> SamplingWeights:
        """The `NamedSharding` of each array on `mesh`; `params` may be shapes alone."""
        packed = jax.eval_shape(self.packed, params)
        rest = param_shardings(packed, mesh, layout("rollout"))
        layer = jax.tree.map(lambda stack: NamedSharding(mesh, P(*stack.spec[1:])), decoder_layers(rest))
        return SamplingWeights(rest, (layer,) * self.config.num_layers)

    def packed(self, params: Any) -> Any:
        """The weights in the form of sampling, but in stacks of layers, as `nnx.merge` reads them."""
        return jax.tree_util.tree_map_with_path(self._packed, params)

    def _laid_out(self, params: Any) -> SamplingWeights:
        params = self.packed(params)
        stack = decoder_layers(params)
        layers = [jax.tree.map(lambda x, i=i: x[i], stack) for i in range(self.config.num_layers)]
        rest = with_decoder_layers(params, jax.tree.map(lambda x: x[:0], stack))
        return SamplingWeights(rest, tuple(layers))

    def _packed(self, path: Any, x: Any) -> Any:
        """A weight as sampling reads it; a stack of layers or one of them."""
        if is_norm(path):
            return x
        if is_matrix(path) or is_token_table(path):
            return pack(x, self.form, per_row=is_token_table(path))
        return x.astype(self.config.dtype)

    def _pack(self, path: Any, array: np.ndarray) -> Any:
        """As `_packed`, of values on the host."""
        if self.form.int8 and (is_matrix(path) or is_token_table(path)):  # several passes over the values
            return self._compiled(array, per_row=is_token_table(path))
        return self._packed(path, array)

    def _local(self, leaf: jax.Array) -> jax.Array:
        """This process's view of an array that is not split between processes; nothing is copied."""
        assert isinstance(leaf.sharding, NamedSharding)
        sharding = NamedSharding(self.host, leaf.sharding.spec)
        return jax.make_array_from_single_device_arrays(
            leaf.shape, sharding, [shard.data for shard in leaf.addressable_shards]
        )
