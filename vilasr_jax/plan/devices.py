"""The devices of a slice that does not exist here, to compile for."""

from __future__ import annotations

import os

from vilasr_jax.errors import ConfigError
from vilasr_jax.slices import Topology


def compile_devices(topology: Topology) -> list:
    """The devices of a slice, to compile for: needs the package `libtpu`, but no TPU.

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

    try:
        return list(topologies.get_topology_desc(topology_name=topology.name, platform="tpu").devices)
    except Exception as error:  # libtpu raises several types
        first = str(error).split("\n")[0]
        raise ConfigError(
            f"--topology={topology.name}: {first} (a plan needs `pip install libtpu`)"
        ) from None
