"""The progress display of long work: bars in a terminal or a notebook, else plain lines of text; and of what
a first answer waits for."""

from __future__ import annotations

import contextlib
import datetime
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

COMPILING = "compiling"  # the note of a task whose first step compiles
SECONDS = 10.0  # between two lines of a task that advances
IDLE_SECONDS = 60.0  # between two lines of one that does not


def progress_bar(shown: bool = True) -> Progress:
    """The progress display of long work: done, elapsed, time left, and one line of figures (`note`).

    Where the output is no terminal, such as a pipe, a log file or a container's log, it is lines of text.

    Args:
      shown: whether anything is displayed; of several hosts, one does.
    """
    columns = (
        TextColumn("{task.description:24}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    bars = Progress(*columns, disable=not shown)
    if not shown or bars.console.is_terminal or bars.console.is_jupyter:
        return bars
    return ProgressLines(disable=True)


@contextlib.contextmanager
def show_progress(title: str) -> Iterator[Callable[..., None]]:
    """Shows one task; yields `show(done, total, note="")`, whose first call begins it."""
    with progress_bar() as progress:
        bar: list[TaskID] = []

        def show(done: int, total: int, note: str = "") -> None:
            if not bar:
                bar.append(progress.add_task(title, total=total, completed=done, note=note))
            progress.update(bar[0], completed=done, total=total, note=note)

        yield show


class ProgressLines(Progress):
    """Prints a line when a task begins and ends, and every `SECONDS` in between."""

    def start(self) -> None:
        """Prints lines from now on."""
        self._ended = threading.Event()
        self._current: Task | None = None
        self._printed: tuple[object, ...] = ()
        self._when = 0.0
        self._thread = threading.Thread(target=self._print_regularly, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Prints where an unfinished task was left, and no more lines."""
        self._ended.set()
        self._thread.join()
        if self._current and not self._current.finished and self._state() != self._printed:
            self._print()

    def add_task(self, *words: Any, **fields: Any) -> TaskID:
        """Begins a task, see `Progress`."""
        number = super().add_task(*words, **fields)
        with self._lock:
            self._current = self._tasks[number]
            self._print()
        return number

    def update(self, task_id: TaskID, **fields: Any) -> None:
        """Advances a task, see `Progress`."""
        with self._lock:
            self._current = self._tasks[task_id]
            finished = self._current.finished
            super().update(task_id, **fields)
            if self._current.finished and not finished:
                self._print()

    def _print_regularly(self) -> None:
        while not self._ended.wait(SECONDS / 10):
            with self._lock:
                if self._current and not self._current.finished:
                    wait = IDLE_SECONDS if self._state() == self._printed else SECONDS
                    if time.monotonic() - self._when >= wait:
                        self._print()

    def _state(self) -> tuple[object, ...]:
        """What a new line would say, except for its times."""
        task = self._current
        return () if task is None else (task.id, task.completed, task.fields["note"])

    def _print(self) -> None:
        if self._current and self._current.visible:
            print(progress_line(self._current), flush=True)
            self._printed, self._when = self._state(), time.monotonic()


def progress_line(task: Task) -> str:
    """A task in one line.

    For example: "cold start: 40 of 400 (10 %), 3.33/s, elapsed 0:00:12, left 0:01:48, loss 0.345".
    """
    parts = [f"{task.description}: {task.completed:,.0f}"]
    if task.total:
        parts[0] += f" of {task.total:,.0f} ({100 * task.completed / task.total:.0f} %)"
    if speed := task.speed:
        parts.append(f"{speed:.3g}/s" if speed >= 1 else f"{1 / speed:.3g} s each")
    if task.elapsed is not None:
        parts.append(f"elapsed {datetime.timedelta(seconds=int(task.elapsed))}")
    if not task.finished and task.time_remaining is not None:
        parts.append(f"left {datetime.timedelta(seconds=int(task.time_remaining))}")
    return ", ".join([*parts, *filter(None, [task.fields["note"]])])


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
