"""Start-up of a job on several hosts: every process runs the same command and finds the others.

Three ways, tried in this order:

- VILASR_COORDINATOR=HOST:PORT, VILASR_NUM_PROCESSES=N and VILASR_PROCESS_ID=I name the others; this is what
  `launch/local_pod.sh` sets, and works on any cluster. HOST:PORT is process 0, which the
  others wait for; VILASR_START_SECONDS changes how long (20).
- On a Cloud TPU VM or a GKE TPU node JAX finds them by itself (`jax.distributed.initialize` without
  arguments). VILASR_DISTRIBUTED=0 turns that off, for a single host of a pod.
- Otherwise the process is alone.

A process that dies, or whose host no longer answers, is noticed after `HEARTBEAT_SECONDS`; JAX's coordination
service then ends all the others with a message, and a restart of the same command resumes from the last
checkpoint.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Any, TypedDict

import jax

from vilasr_jax.errors import ConfigError
from vilasr_jax.parallel.compile_cache import save_local_programs
from vilasr_jax.parallel.devices import has_tpu

HEARTBEAT_SECONDS = 30  # without a sign of life before a process counts as dead
SHUTDOWN_SECONDS = 30  # that a finished process waits for the others
START_SECONDS = 600  # until all processes must have appeared, once the coordinator answers
ANSWER_SECONDS = 20  # until the coordinator must have answered
_NAMES = ("VILASR_COORDINATOR", "VILASR_NUM_PROCESSES", "VILASR_PROCESS_ID")


class Coordinator(TypedDict):
    """Arguments of `jax.distributed.initialize` that VILASR_* variables give."""

    coordinator_address: str  # HOST:PORT of process 0
    num_processes: int
    process_id: int


def join(environ: Mapping[str, str] = os.environ) -> None:
    """Joins the job's other processes, if there are any; call it before anything touches a device.

    A second call does nothing.

    Raises:
      ConfigError: the environment names the other processes only in part, or wrongly, or they do not answer.
    """
    if jax.distributed.is_initialized():
        return
    given = explicit(environ)
    if given is not None:
        wait_for_coordinator(given["coordinator_address"], given["process_id"], _answer_seconds(environ))
    if given is not None or on_tpu_host(environ):
        arguments: dict[str, Any] = dict(given) if given is not None else {}
        try:
            jax.distributed.initialize(
                **arguments,
                initialization_timeout=START_SECONDS,
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                shutdown_timeout_seconds=SHUTDOWN_SECONDS,
            )
        except (RuntimeError, ValueError) as error:
            line = " ".join(str(error).split())
            raise ConfigError(f"the job's processes did not find each other ({line})") from error
        save_local_programs()


def wait_for_coordinator(address: str, process: int, seconds: float) -> None:
    """Waits until process 0 listens at HOST:PORT; process 0 itself only looks the name up.

    Raises:
      ConfigError: process 0 does not answer within `seconds`.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    end, reason = time.monotonic() + seconds, ""
    while (left := end - time.monotonic()) > 0:
        try:
            if process == 0:
                socket.getaddrinfo(host, int(port))
            else:
                socket.create_connection((host, int(port)), timeout=min(left, 5)).close()
            return
        except OSError as error:
            reason = error.strerror or str(error)
        time.sleep(min(0.5, max(0.0, end - time.monotonic())))
    raise ConfigError(
        f"VILASR_COORDINATOR={address} does not answer within {seconds:g} seconds ({reason}); "
        "start process 0 there, or let it have more time with VILASR_START_SECONDS"
    )


def _answer_seconds(environ: Mapping[str, str]) -> float:
    given = environ.get("VILASR_START_SECONDS") or str(ANSWER_SECONDS)
    try:
        return float(given)
    except ValueError:
        raise ConfigError(f"VILASR_START_SECONDS={given} must be a number of seconds") from None


def explicit(environ: Mapping[str, str]) -> Coordinator | None:
    """The coordinator, number of processes and own number that VILASR_* variables give, or None."""
    values = {name: environ.get(name, "") for name in _NAMES}
    if not any(values.values()):
        return None
    if missing := [name for name, value in values.items() if not value]:
        raise ConfigError(f"{missing[0]} is not set; set all of {', '.join(_NAMES)}, or none")
    coordinator, count, number = values.values()
    if not (count.isdecimal() and number.isdecimal() and int(number) < int(count)):
        raise ConfigError(f"VILASR_PROCESS_ID={number} must be a number below VILASR_NUM_PROCESSES={count}")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"VILASR_COORDINATOR={coordinator}: give HOST:PORT of process 0")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ConfigError(f"VILASR_COORDINATOR={coordinator}: put brackets around IPv6, as in [::1]:8476")
    return Coordinator(coordinator_address=coordinator, num_processes=int(count), process_id=int(number))


def on_tpu_host(environ: Mapping[str, str]) -> bool:
    """Whether this machine has TPU chips that JAX will use."""
    if environ.get("VILASR_DISTRIBUTED") == "0" or environ.get("JAX_PLATFORMS", "tpu") not in ("", "tpu"):
        return False
    return has_tpu()
