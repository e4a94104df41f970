"""The devices of a slice that does not exist here, to compile for."""

from __future__ import annotations

import os

from vilasr_jax.errors import ConfigError
from vilasr_jax.slices import Topology


def compile_devices(topology: Topology, *, one_host: bool = False) -> list:
    """The devices of a slice, to compile for: needs the package `libtpu`, but no TPU.

    Args:
      topology: the slice.
      one_host: all chips are in one machine, as in one with 8 chips of v5e.

    Call it in a separate process: libtpu reads the environment that this sets once, when it is loaded.

    Raises:
      ConfigError: libtpu is not installed, or does not know the topology.
    """
    os.environ.update(
        TPU_SKIP_MDS_QUERY="1",
        TPU_ACCELERATOR_TYPE="v5litepod-4",
        TPU_WORKER_HOSTNAMES="localhost",
        TPU_WORKER_ID="0",
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",
    )
    from jax.experimental import topologies

    name = f"{topology.chip.name}:2x2" if topology.size == 1 else topology.name  # libtpu knows no single chip
    try:
        hosts = {"chips_per_host_bounds": (*topology.sides, 1)[:3]} if one_host and topology.size > 4 else {}
        described = topologies.get_topology_desc(topology_name=name, platform="tpu", **hosts)
        return list(described.devices)[: topology.size]
    except Exception as error:  # libtpu raises several types
        first = str(error).split("\n")[0]
        raise ConfigError(
            f"--topology={topology.name}: {first} (a plan needs `pip install libtpu`)"
        ) from None
