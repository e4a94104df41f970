"""The device mesh, and the sharding of batches and rollout slots on it.

Steps are `jax.jit` with `NamedSharding` (what pjit became). `jax.pmap` is not used: since JAX 0.8 it is only
a maintenance wrapper over jit and shard_map.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vilasr_jax.config import MeshSection
from vilasr_jax.errors import ConfigError

AXES = ("data", "fsdp", "model")


def make_mesh(section: MeshSection, devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh with the axes data, fsdp and model over `devices` (all by default).

    Raises:
      ConfigError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = mesh_sizes(section, len(devices))
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def mesh_sizes(section: MeshSection, devices: int) -> tuple[int, ...]:
    """Devices along data, fsdp and model, with the -1 filled in.

    Raises:
      ConfigError: the sizes do not multiply to the number of devices.
    """
    sizes = [section.data, section.fsdp, section.model]
    rest = int(np.prod([size for size in sizes if size != -1]))
    if sizes.count(-1) == 1 and rest > 0:
        sizes[sizes.index(-1)] = devices // rest
    if min(sizes) < 1 or int(np.prod(sizes)) != devices:
        raise ConfigError(
            f"config.mesh: data={section.data}, fsdp={section.fsdp}, model={section.model} do not cover the "
            f"{devices} devices"
        )
    return tuple(sizes)


def batch_axis(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Splits dimension `axis` of an array over the data and fsdp axes."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, ("data", "fsdp")))


def put_batch(mesh: Mesh, batch: Any) -> Any:
    """Places a `processing.Batch` of host arrays: every array is split by its batch dimension.

    On several hosts, each gives its own rows (see `host_rows`); the step's batch is all of them.
    """
    if mesh.size == 1:
        return jax.device_put(batch)
    specs = jax.tree.map(lambda _: batch_axis(mesh), batch)._replace(positions=batch_axis(mesh, 1))
    if jax.process_count() == 1:
        return jax.device_put(batch, specs)
    return jax.tree.map(lambda x, spec: jax.make_array_from_process_local_data(spec, x), batch, specs)


def host_rows(mesh: Mesh) -> tuple[int, int]:
    """(number, count): this process feeds the `number`-th of `count` equal parts of a batch.

    Raises:
      ConfigError: the devices of a host do not hold a part of their own.
    """
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    shard_indexes = batch_axis(mesh).addressable_devices_indices_map((shards,)).values()
    mine = sorted({index[0].start or 0 for index in shard_indexes if index})
    if shards % len(mine) or mine != list(range(mine[0], mine[0] + len(mine))) or mine[0] % len(mine):
        raise ConfigError(
            f"config.mesh: host {jax.process_index()} would hold the batch shards {mine} of {shards}; choose "
            "data, fsdp and model so that each host has an equal run of them"
        )
    return mine[0] // len(mine), shards // len(mine)


def place(tree: Any, shardings: Any) -> Any:
    """Shards unsharded arrays, equal on every host, as `shardings` says."""
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)

    def put(x: Any, sharding: NamedSharding) -> jax.Array:
        return jax.make_array_from_callback(x.shape, sharding, np.asarray(x).__getitem__)

    return jax.tree.map(put, tree, shardings)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding that replicates an array on every device."""
    return NamedSharding(mesh, PartitionSpec())
