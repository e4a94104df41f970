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
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from vilasr_jax.units import byte_unit

COMPILING = "compiling"  # the note of a task whose first step compiles
SECONDS = 10.0  # between two lines in the first FIRST_SECONDS
LATER_SECONDS = 30.0  # and after that
FIRST_SECONDS = 600.0
_TICK = 0.5  # seconds between two looks at the time
_WINDOW = 300.0  # seconds whose steps a rate is of, where there are any


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
        _TimeLeft(),
        TextColumn("{task.fields[note]}"),
    )
    bars = _TimedProgress(*columns, disable=not shown, speed_estimate_period=_WINDOW)
    if not shown or bars.console.is_terminal or bars.console.is_jupyter:
        return bars
    return ProgressLines(disable=True, speed_estimate_period=_WINDOW)


@contextlib.contextmanager
def show_progress(title: str, percent: bool = False) -> Iterator[Callable[..., None]]:
    """Shows one task; yields `show(done, total, note="")`, whose first call begins it.

    Args:
      title: of the task.
      percent: it is counted in percent, of 100.
    """
    with progress_bar() as progress:
        bar: list[TaskID] = []

        def show(done: int, total: int, note: str = "") -> None:
            if not bar:
                bar.append(progress.add_task(title, total=total, completed=done, note=note, percent=percent))
            progress.update(bar[0], completed=done, total=total, note=note)

        yield show


class _TimedProgress(Progress):
    """Notes of each task where it began (`began`), and when it advanced last (`advanced`)."""

    def add_task(self, *words: Any, **fields: Any) -> TaskID:
        now = self.get_time()
        return super().add_task(*words, began=fields.get("completed", 0), advanced=now, **fields)

    def update(self, task_id: TaskID, **fields: Any) -> None:
        with self._lock:
            before = self._tasks[task_id].completed
            super().update(task_id, **fields)
            if self._tasks[task_id].completed != before:
                self._tasks[task_id].fields["advanced"] = self.get_time()


class ProgressLines(_TimedProgress):
    """Prints a line when a task begins and ends, and every `SECONDS` in between, later `LATER_SECONDS`."""

    def start(self) -> None:
        """Prints lines from now on."""
        self._began = self.get_time()
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
        while not self._ended.wait(_TICK):
            with self._lock:
                if self._current and not self._current.finished:
                    now = self.get_time()
                    wait = SECONDS if now - self._began < FIRST_SECONDS else LATER_SECONDS
                    if now - self._when >= wait:
                        self._print()

    def _state(self) -> tuple[object, ...]:
        """What a new line would say, except for its times."""
        task = self._current
        return () if task is None else (task.id, task.completed, task.fields["note"])

    def _print(self) -> None:
        if self._current and self._current.visible:
            print(progress_line(self._current), flush=True)
            self._printed, self._when = self._state(), self.get_time()


def progress_line(task: Task) -> str:
    """A task in one line.

    For example: "cold start: 40 of 400 (10 %), 3.33/s, elapsed 0:00:12, left 0:01:48, loss 0.345".
    """
    parts = [f"{task.description}: {task.completed:,.0f}"]
    percent = task.fields.get("percent")
    if percent:
        parts[0] += " %"
    elif task.total:
        parts[0] += f" of {task.total:,.0f} ({100 * task.completed / task.total:.0f} %)"
    if (each := seconds_each(task)) and not percent:
        parts.append(f"{1 / each:.3g}/s" if each <= 1 else f"{each:.3g} s each")
    if task.elapsed is not None:
        parts.append(f"elapsed {datetime.timedelta(seconds=int(task.elapsed))}")
    if not task.finished and (left := seconds_left(task)) is not None:
        parts.append(f"left {datetime.timedelta(seconds=int(left))}")
    return ", ".join([*parts, *filter(None, [task.fields["note"]])])


def seconds_each(task: Task) -> float | None:
    """Seconds of a unit of a task: of the last minutes, or of all since it began where the next is overdue.

    None where nothing is done yet.
    """
    done = task.completed - task.fields["began"]
    if done <= 0 or task.elapsed is None:
        return None
    recent = 1 / task.speed if task.speed else None
    if recent is None or (not task.finished and _waited(task) > 2 * recent):
        return task.elapsed / done
    return recent


def seconds_left(task: Task) -> float | None:
    """Seconds until a task ends, where that can be estimated."""
    each = seconds_each(task)
    if each is None or task.total is None:
        return None
    return each * (task.total - task.completed) - min(_waited(task), each)


def _waited(task: Task) -> float:
    """Seconds since a task has advanced."""
    return task.get_time() - task.fields["advanced"]


class _TimeLeft(ProgressColumn):
    """The time that is left, as `progress_line` has it."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        left = None if task.finished else seconds_left(task)
        return Text("" if left is None else f"left {datetime.timedelta(seconds=int(left))}")


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
        now, (unit, name) = time.monotonic(), byte_unit(total)
        if done == total and self._written > self._began:  # it was shown before
            self.show(f"loaded {total / unit:.1f} {name} of weights in {now - self._began:.0f} seconds")
        elif now - self._written >= self._pause:
            self.show(f"loading weights: {done / unit:.1f} of {total / unit:.1f} {name}")

    def compiling(self, name: str) -> None:
        """Shows the step that is compiled, or read from the compilation cache; `CompiledSteps.announce`."""
        self.show(f"compiling {name} ...")

    def clear(self) -> None:
        """Removes the line from a terminal, before other output."""
        if self.terminal and self._written > self._began:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
