"""Published weights read by the hosts that hold them: every host its own rows, each row by one host.

A published tensor is stored row after row, and our layout splits most weights by columns, too: a host that
read its columns would touch every page of the file. So each host reads an equal run of the rows, to its own
devices, and one compiled copy a weight exchanges the parts between the devices.
"""

from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vilasr_jax.checkpoint.hf_layout import PublishedWeights, abstract_params, map_named
from vilasr_jax.models.sharding import fitted, param_shardings

Block = tuple[tuple[int | None, int | None], ...]  # start and stop along each axis


def load_sharded(weights: PublishedWeights, mesh: Mesh) -> nnx.State:
    """The weights in the layout of training on `mesh`; all hosts must call it.

    No device holds more than its parts, and a host no more than its parts of one weight, until these are on
    its devices.
    """
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


def file_sharding(weights: PublishedWeights, path: str, shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    """How a weight is read: its rows split over all devices, and its layers where the rows do not divide.

    Of the ways to give the mesh's axes to layers and rows it is the one with the most parts.
    """
    axis, axes = weights.rows_axis(path), mesh.axis_names
    stacked = weights.tensors[path][0].layer is not None

    def split(layers: int) -> P:
        named: list[tuple[str, ...] | None] = [None] * len(shape)
        named[axis] = axes[layers:] or None
        if layers:
            named[0] = axes[:layers]
        return fitted(P(*named), shape, mesh)

    ways = [NamedSharding(mesh, split(layers)) for layers in range(len(axes) + 1 if stacked else 1)]
    return min(ways, key=lambda way: np.prod(way.shard_shape(shape)))


def host_blocks(
    weights: PublishedWeights, path: str, shape: tuple[int, ...], sharding: NamedSharding, process: int
) -> dict[Block, np.ndarray]:
    """The values of a weight's blocks that the devices of a host hold; a block on several is read once."""
    held: Any = sharding.devices_indices_map(shape).items()
    mine = {_key(index): index for device, index in held if device.process_index == process}
    return {key: weights.block(path, index, shape) for key, index in mine.items()}


def _key(index: tuple[slice, ...]) -> Block:
    return tuple((part.start, part.stop) for part in index)
