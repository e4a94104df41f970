"""The progress display of long work, and of what a first answer waits for."""

import sys
import time
from typing import TextIO

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def progress_bar() -> Progress:
    """The progress display of long work: done, elapsed, time left, and one line of figures."""
    return Progress(
        TextColumn("{task.description:24}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )


class StatusLine:
    """What a first answer waits for, on standard error.

    A terminal has one line, which the next replaces; a log has lines of their own, not more than one in
    `seconds` while weights are read.

    Args:
      stream: where it is written; None: standard error.
      seconds: between two lines of a log.
    """

    def __init__(self, stream: TextIO | None = None, seconds: float = 5.0):
        self.stream = sys.stderr if stream is None else stream
        self.terminal = self.stream.isatty()
        self._pause = 0.1 if self.terminal else seconds
        self._began = self._written = time.monotonic()

    def show(self, text: str) -> None:
        """Writes the line."""
        self.stream.write(f"\r{text}\x1b[K" if self.terminal else f"{text}\n")
        self.stream.flush()
        self._written = time.monotonic()

    def loaded(self, done: int, total: int) -> None:
        """Shows how many bytes of the weights were read; the progress of `Engine.load`."""
        now = time.monotonic()
        if done == total and self._written > self._began:  # it was shown before
            self.show(f"loaded {total / 2**30:.1f} GiB of weights in {now - self._began:.0f} seconds")
        elif now - self._written >= self._pause:
            self.show(f"loading weights: {done / 2**30:.1f} of {total / 2**30:.1f} GiB")

    def compiling(self, name: str) -> None:
        """Shows the step that is compiled, or read from the compilation cache; `CompiledSteps.announce`."""
        self.show(f"compiling {name} ...")

    def clear(self) -> None:
        """Removes the line from a terminal, before other output."""
        if self.terminal and self._written > self._began:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
