"""Stop requests: SIGTERM (a preempted machine, `kill`) and Ctrl-C save a run's state and end it.

`cli` calls `listen`. Supervised training (`sft`) checks for a request at each step, `rollouts` after each
conversation, `groups` when all hosts have sampled. `step_loop` then saves the state, and `errors.Stopped`
ends the command. A step whose conversations were being sampled in `grpo` is abandoned: the one before it is
saved. A step that was being validated (`validation`) is saved without its scores.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

from vilasr_jax import ctrl_c
from vilasr_jax.parallel import alone, any_host

ANSWERS = ctrl_c.Answers(
    first=(
        "Ctrl-C: the run stops after the step that is running or compiling, and saves; Ctrl-C again ends it "
        "at once, without saving"
    ),
    second=(
        "vilasr: ended by the second Ctrl-C; what was saved before is complete, and the same command "
        "resumes it"
    ),
    seconds=0.0,
)
_requested, _deferred = threading.Event(), threading.Event()
_interrupted_at = -math.inf  # by `time.monotonic`


def listen() -> None:
    """Makes SIGTERM and the first Ctrl-C stop requests; the second Ctrl-C ends at once. Main thread only."""
    global _interrupted_at
    _requested.clear()
    _interrupted_at = -math.inf
    ctrl_c.answer(ANSWERS)
    signal.signal(signal.SIGTERM, lambda *_: _requested.set())
    signal.signal(signal.SIGINT, _interrupted)


def _interrupted(number: int, frame: Any) -> None:
    global _interrupted_at
    now = time.monotonic()
    if now - _interrupted_at < ctrl_c.SAME_SECONDS:
        return
    _interrupted_at = now
    if _requested.is_set():
        signal.default_int_handler(number, frame)
    _requested.set()
    ctrl_c.say_first()


def stop_requested_here() -> bool:
    """Whether this process got a stop request that is not deferred."""
    return _requested.is_set() and not _deferred.is_set()


def stop_requested_alone() -> bool:
    """Whether the only process got a stop request; never where there are several, which have to agree."""
    return alone() and stop_requested_here()


def stop_requested() -> bool:
    """Whether any host got a stop request; all hosts must call it at the same place."""
    return any_host(stop_requested_here())


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Ignores stop requests until the end of the block."""
    _deferred.set()
    try:
        yield
    finally:
        _deferred.clear()
