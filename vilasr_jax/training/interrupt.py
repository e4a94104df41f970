"""SIGTERM (a preempted machine, `kill`): the run saves where it is, and ends."""

from __future__ import annotations

import signal
import threading

from vilasr_jax.parallel import any_host

_asked = threading.Event()


def listen() -> None:
    """From now on SIGTERM asks the run to stop. Main thread only."""
    _asked.clear()
    signal.signal(signal.SIGTERM, lambda *_: _asked.set())


def asked_here() -> bool:
    """Whether this process was asked to stop."""
    return _asked.is_set()


def asked() -> bool:
    """Whether any host was asked to stop; all hosts must call it at the same place."""
    return any_host(_asked.is_set())
