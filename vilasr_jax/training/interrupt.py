"""Stop requests: on SIGTERM (a preempted machine, `kill`) the run saves its state and ends."""

from __future__ import annotations

import signal
import threading

from vilasr_jax.parallel import any_host

_requested = threading.Event()


def listen() -> None:
    """Makes SIGTERM a stop request. Main thread only."""
    _requested.clear()
    signal.signal(signal.SIGTERM, lambda *_: _requested.set())


def stop_requested_here() -> bool:
    """Whether this process got a stop request."""
    return _requested.is_set()


def stop_requested() -> bool:
    """Whether any host got a stop request; all hosts must call it at the same place."""
    return any_host(_requested.is_set())
