"""The device mesh, and the sharding of batches and rollout slots on it.

Devices are ordered host by host, and the model axis is the innermost, so that it stays inside a host and each
host holds an equal run of the batch shards (here two hosts of four devices, fsdp=4 and model=2):

    host 0   shard 0: device 0 1   shard 1: device 2 3
    host 1   shard 2: device 4 5   shard 3: device 6 7

Questions about a host are methods of the mesh, for any of its hosts: devices that are not there, those of a
topology to compile for, give the same answers as the pod's own.

Steps are `jax.jit` with `NamedSharding` (what pjit became). `jax.pmap` is not used: since JAX 0.8 it is only
a maintenance wrapper over jit and shard_map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vilasr_jax.config import MeshSection
from vilasr_jax.errors import ConfigError
from vilasr_jax.models import ModelConfig

AXES = ("data", "fsdp", "model")


def make_mesh(section: MeshSection, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the axes data, fsdp and model over `devices` (all by default), in the order of `by_host`.

    Raises:
      ConfigError: the sizes do not multiply to the number of devices.
    """
    devices = by_host(jax.devices() if devices is None else devices)
    grid = np.array(devices, object).reshape(mesh_sizes(section, len(devices)))
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def sampling_mesh(config: ModelConfig, slots: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of a model that only samples, over one process's devices.

    The model is split first: at each token a device reads its own part of the weights alone. The axis is as
    long as both numbers of heads and the number of devices allow. The slots are split over the rest, of which
    no device stays without one; with a single slot the rest is not used.

    Args:
      config: of the model; any form of its weights is split alike.
      slots: the most conversations at once.
      devices: by default all of this process.
    """
    devices = by_host(jax.local_devices() if devices is None else devices)
    model = math.gcd(config.num_heads, config.num_kv_heads, len(devices))
    rest = len(devices) // model
    data = next(size for size in range(1, rest + 1) if rest % size == 0 and size >= min(slots, rest))
    return make_mesh(MeshSection(data=data, model=model), devices[: data * model])


def by_host(devices: Sequence[jax.Device]) -> list[jax.Device]:
    """The devices host by host: hosts by the place of their first chip in the slice, then chips by theirs.

    Devices without coordinates (CPUs and GPUs) are ordered by process and number.
    """

    def place_of(device: jax.Device) -> tuple[int, ...]:
        coords = getattr(device, "coords", None)
        if coords is None:
            return (device.process_index, device.id)
        return (getattr(device, "slice_index", None) or 0, *reversed(coords), device.core_on_chip)

    first: dict[int, tuple[int, ...]] = {}
    for device in sorted(devices, key=place_of):
        first.setdefault(device.process_index, place_of(device))
    return sorted(devices, key=lambda device: (first[device.process_index], place_of(device)))


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


def mesh_hosts(mesh: Mesh) -> list[int]:
    """The process indices of the mesh's devices, in the mesh's order."""
    return list(dict.fromkeys(device.process_index for device in mesh.devices.flat))


def host_mesh(mesh: Mesh, process: int | None = None) -> Mesh:
    """The part of a mesh that one host's devices form: what `Mesh.local_mesh` is, for any host.

    Args:
      mesh: over the devices of all hosts.
      process: index of the host; None: this process, or the only host of the mesh.

    Raises:
      ConfigError: the model axis reaches over several hosts, or the host's devices form no block.
    """
    process = _process(mesh, process)
    mine = np.vectorize(lambda device: device.process_index == process, otypes=[bool])(mesh.devices)
    if mine.all():
        return mesh
    block = np.ix_(*(np.flatnonzero(mine.any(tuple({0, 1, 2} - {axis}))) for axis in range(3)))
    if block[2].size != mesh.shape["model"]:
        raise ConfigError(
            f"config.mesh.model={mesh.shape['model']} reaches over several hosts (host {process} has "
            f"{mine.sum()} devices); sampling needs it within one: make it no more than a host's devices"
        )
    if not mine[block].all():
        raise ConfigError(
            f"config.mesh: the devices of host {process} form no block of data={mesh.shape['data']} and "
            f"fsdp={mesh.shape['fsdp']}; make data or fsdp a multiple of a host's batch shards"
        )
    return Mesh(mesh.devices[block], mesh.axis_names, axis_types=mesh.axis_types)


def host_rows(mesh: Mesh, process: int | None = None) -> tuple[int, int]:
    """(number, count): a host feeds the `number`-th of `count` equal parts of a batch.

    Args:
      mesh: over the devices of all hosts.
      process: index of the host; None: this process, or the only host of the mesh.

    Raises:
      ConfigError: some host's devices do not hold an equal run of the batch shards; every host sees it.
    """
    shards = mesh.devices.reshape(-1, mesh.shape["model"])
    found = {}
    for host in mesh_hosts(mesh):
        mine = [i for i, row in enumerate(shards) if any(device.process_index == host for device in row)]
        if len(shards) % len(mine) or mine[0] % len(mine) or mine != [*range(mine[0], mine[0] + len(mine))]:
            raise ConfigError(
                f"config.mesh: host {host} would hold the batch shards {mine} of {len(shards)}; choose "
                "data, fsdp and model so that each host has an equal run of them"
            )
        found[host] = (mine[0] // len(mine), len(shards) // len(mine))
    if len(counts := {count for _, count in found.values()}) > 1:
        raise ConfigError(
            f"config.mesh: the hosts would hold unequal parts of a batch ({sorted(counts)} of it); choose "
            "data, fsdp and model so that each host has an equal run of the batch shards"
        )
    return found[_process(mesh, process)]


def _process(mesh: Mesh, process: int | None) -> int:
    if process is not None:
        return process
    hosts = mesh_hosts(mesh)
    return hosts[0] if len(hosts) == 1 else jax.process_index()


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
