"""Ctrl-C in a process whose main thread is compiling: a thread answers the first one and obeys the second.

Python runs a signal's handler between two instructions of the main thread, which may be in one compilation or
one file operation for minutes. The signal's number is in a pipe at once, where a thread reads it.
"""

from __future__ import annotations

import math
import os
import select
import signal
import sys
import threading
import time
from dataclasses import dataclass

from vilasr_jax.errors import INTERRUPTED


@dataclass(frozen=True)
class Answers:
    """What is said, on standard error.

    Attributes:
      first: after the first Ctrl-C.
      second: after the second one, which ends the process.
      seconds: that pass before `first` is said; an ended process says nothing.
    """

    first: str = "Ctrl-C: waiting for what is compiling or being written; Ctrl-C again ends vilasr at once"
    second: str = "vilasr: stopped by Ctrl-C"
    seconds: float = 2.0


SAME_SECONDS = 0.5  # two signals in this time are one Ctrl-C: a parent passed it on, as `timeout` does
_answers = Answers()
_said = threading.Lock()  # held since `first` was said
_watched = False


def watch() -> None:
    """Answers Ctrl-C from now on, and ends the process at the second one. Main thread only, once."""
    global _watched
    if _watched:
        return
    _watched = True
    out, into = os.pipe()
    os.set_blocking(into, False)
    signal.set_wakeup_fd(into, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # its signals are its own
    threading.Thread(target=_read, args=(out,), daemon=True).start()


def answer(answers: Answers) -> None:
    """Sets what is said from now on; also makes the next Ctrl-C the first."""
    global _answers
    _answers = answers
    if _said.locked():
        _said.release()


def say_first() -> None:
    """Says `Answers.first`, once."""
    if _said.acquire(blocking=False):
        os.write(2, f"{_answers.first}\n".encode())


def _read(pipe: int) -> None:
    count, last = 0, -math.inf
    while True:
        waits = count == 1 and not _said.locked()
        if not select.select([pipe], [], [], _answers.seconds if waits else None)[0]:
            say_first()
            continue
        now = time.monotonic()
        if signal.SIGINT in os.read(pipe, 64) and now - last >= SAME_SECONDS:
            count, last = count + 1, now
        if count > 1:
            _end()


def _end() -> None:
    """Ends the process as it is: nothing else ends a compilation. Files are written so that any moment may be
    their last."""
    if sys.__stdout__ is not None and sys.__stdout__.isatty():
        os.write(1, b"\x1b[?25h\n")  # progress bars hide the cursor
    os.write(2, f"{_answers.second}\n".encode())
    os._exit(INTERRUPTED)
