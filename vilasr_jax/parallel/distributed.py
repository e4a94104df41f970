"""Start-up of a job on several hosts: every process runs the same command and finds the others.

Three ways, tried in this order:

- VILASR_COORDINATOR=HOST:PORT, VILASR_NUM_PROCESSES=N and VILASR_PROCESS_ID=I name the others; this is what
  `launch/local_pod.sh` sets, and what serves on a cluster of one's own.
- On a Cloud TPU VM or a GKE TPU node JAX finds them by itself (`jax.distributed.initialize` without
  arguments). VILASR_DISTRIBUTED=0 turns that off, for a single host of a pod.
- Otherwise the process is alone.

A process that dies, or whose host no longer answers, is missed after `HEARTBEAT_SECONDS`; JAX's coordination
service then ends all the others with a message, and a restart of the same command goes on from the last
checkpoint.
"""

from __future__ import annotations

import glob
import importlib.util
import os
from collections.abc import Mapping

import jax

from vilasr_jax.errors import ConfigError

HEARTBEAT_SECONDS = 30  # without a sign of life before a process counts as dead
SHUTDOWN_SECONDS = 30  # that a process which is done waits for the others
START_SECONDS = 600  # that all processes may take to appear
_NAMES = ("VILASR_COORDINATOR", "VILASR_NUM_PROCESSES", "VILASR_PROCESS_ID")


def join(environ: Mapping[str, str] = os.environ) -> None:
    """Joins the job's other processes, if there are any; call it before anything touches a device.

    A second call does nothing.

    Raises:
      ConfigError: the environment names the other processes only in part, or wrongly.
    """
    if jax.distributed.is_initialized():
        return
    given = explicit(environ)
    if given is not None or on_tpu_host(environ):
        jax.distributed.initialize(
            **(given or {}),
            initialization_timeout=START_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )


def explicit(environ: Mapping[str, str]) -> dict[str, str | int] | None:
    """The coordinator, number of processes and own number that VILASR_* variables give, or None."""
    values = {name: environ.get(name, "") for name in _NAMES}
    if not any(values.values()):
        return None
    if missing := [name for name, value in values.items() if not value]:
        raise ConfigError(f"{missing[0]} is not set; set all of {', '.join(_NAMES)}, or none")
    coordinator, count, number = values.values()
    if not (count.isdecimal() and number.isdecimal() and int(number) < int(count)):
        raise ConfigError(f"VILASR_PROCESS_ID={number} must be a number below VILASR_NUM_PROCESSES={count}")
    if not coordinator.rpartition(":")[2].isdecimal():
        raise ConfigError(f"VILASR_COORDINATOR={coordinator}: give HOST:PORT of process 0")
    return {"coordinator_address": coordinator, "num_processes": int(count), "process_id": int(number)}


def on_tpu_host(environ: Mapping[str, str]) -> bool:
    """Whether this machine carries TPU chips that JAX will use."""
    if environ.get("VILASR_DISTRIBUTED") == "0" or environ.get("JAX_PLATFORMS", "tpu") not in ("", "tpu"):
        return False
    has_chips = bool(glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*"))
    return has_chips and importlib.util.find_spec("libtpu") is not None
