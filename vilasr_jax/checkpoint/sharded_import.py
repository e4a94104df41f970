"""Stored weights read by the hosts that hold them: every host an equal part of each weight.

A published tensor is stored row after row, an Orbax array chunk after chunk (a layer or more each), and our
layout splits most weights by columns, too: a host that read its columns would touch every page of the file.
So each host reads an equal run of rows or of layers, to its own devices, and one compiled copy a weight
exchanges the parts between the devices. Of an Orbax array in a bucket a chunk is fetched by every host that
needs a part of it.
"""

from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vilasr_jax.checkpoint.hf_layout import Weights, abstract_params, load_weights, map_named
from vilasr_jax.models.sharding import fitted, param_shardings

Block = tuple[tuple[int | None, int | None], ...]  # start and stop along each axis


def load_sharded(weights: Weights, mesh: Mesh | None = None) -> nnx.State:
    """The weights in the layout of training on `mesh`, which all hosts must call; without one, on one device.

    No device holds more than its parts, and a host no more than its parts of one weight, until these are on
    its devices.
    """
    if mesh is None:
        return load_weights(weights)
    abstract = abstract_params(weights.config)
    places = iter(jax.tree.leaves(param_shardings(abstract, mesh)))

    def load(path: str, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        source, target = file_sharding(weights, path, leaf.shape, mesh), next(places)
        blocks = host_blocks(weights, path, leaf.shape, source, jax.process_index())
        array = jax.make_array_from_callback(leaf.shape, source, lambda index: blocks[_key(index or ())])
        if source.is_equivalent_to(target, len(leaf.shape)):
            return array
        return jax.jit(lambda x: x, out_shardings=target)(array)

    return map_named(load, abstract)


def file_sharding(weights: Weights, path: str, shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    """How a weight is read: split over all devices along the cheapest axis to cut, and where that does not
    divide along the next, too.

    Of the ways to give the mesh's axes to these two it is the one with the most parts.
    """
    first, *others = weights.cuts(path)
    axes = mesh.axis_names

    def split(count: int) -> P:
        named: list[tuple[str, ...] | None] = [None] * len(shape)
        named[first] = axes[count:] or None
        if count:
            named[others[0]] = axes[:count]
        return fitted(P(*named), shape, mesh)

    ways = [NamedSharding(mesh, split(count)) for count in range(len(axes) + 1 if others else 1)]
    return min(ways, key=lambda way: np.prod(way.shard_shape(shape)))


def host_blocks(
    weights: Weights, path: str, shape: tuple[int, ...], sharding: NamedSharding, process: int
) -> dict[Block, np.ndarray]:
    """The values of a weight's blocks that the devices of a host hold; a block on several is read once."""
    held: Any = sharding.devices_indices_map(shape).items()
    mine = {_key(index): index for device, index in held if device.process_index == process}
    return {key: weights.block(path, index, shape) for key, index in mine.items()}


def _key(index: tuple[slice, ...]) -> Block:
    return tuple((part.start, part.stop) for part in index)
