"""Threads that draw, with a time limit for each piece of work."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from typing import Any


class DrawingTask(Future):
    """Work in a `DrawingPool`: a future that knows when it began to run."""

    def __init__(self, work: Callable[[], Any]):
        super().__init__()
        self.work = work
        self.submitted = time.monotonic()
        self.began: float | None = None  # None while it queues


class DrawingPool:
    """Runs work in threads and gives up on what runs too long.

    A thread that hangs can't be stopped. Another is started in its place, and its late result is dropped; all
    are daemons, so it does not block the end of the program.

    Args:
      workers: threads.
      seconds: limit of one piece of work, from the moment that a thread starts it; 0: none.
    """

    def __init__(self, workers: int, seconds: float):
        self.seconds = seconds
        self.worked = 0.0  # seconds that all threads were busy, summed
        self._workers = workers
        self._queue: queue.SimpleQueue[DrawingTask | None] = queue.SimpleQueue()
        for _ in range(workers):
            self._start()

    def __enter__(self) -> DrawingPool:
        return self

    def __exit__(self, *error: object) -> None:
        for _ in range(self._workers):
            self._queue.put(None)

    def submit(self, work: Callable[[], Any]) -> DrawingTask:
        """Queues `work`; its result, exception or a TimeoutError is in the task that is returned."""
        task = DrawingTask(work)
        self._queue.put(task)
        return task

    def wait(self, tasks: Iterable[DrawingTask], seconds: float) -> None:
        """Returns when all tasks are done, or older than `seconds`; gives up on those past the limit."""
        tasks = list(tasks)
        while True:
            now = time.monotonic()
            for task in tasks:
                if self.seconds and task.began is not None and now - task.began > self.seconds:
                    self._give_up(task)
            young = [task for task in tasks if not task.done() and now - task.submitted < seconds]
            if not young:
                return
            until = min(task.submitted + seconds for task in young)
            if self.seconds:
                until = min(until, now + self.seconds)
            wait(young, max(until - now, 0.001))

    def wait_any(self, tasks: Iterable[DrawingTask]) -> None:
        """Returns when a task is done; gives up on those past the limit."""
        tasks = list(tasks)
        while not any(task.done() for task in tasks):
            wait(tasks, 0.05, FIRST_COMPLETED)
            self.wait(tasks, 0)

    def _give_up(self, task: DrawingTask) -> None:
        try:
            task.set_exception(TimeoutError(f"it needed longer than {self.seconds:g} seconds"))
        except InvalidStateError:
            return  # it finished in the meantime
        self._start()

    def _start(self) -> None:
        threading.Thread(target=self._run, name="drawing", daemon=True).start()

    def _run(self) -> None:
        while (task := self._queue.get()) is not None:
            task.began = time.monotonic()
            try:
                value, error = task.work(), None
            except BaseException as raised:
                value, error = None, raised
            self.worked += time.monotonic() - task.began
            try:
                task.set_result(value) if error is None else task.set_exception(error)
            except InvalidStateError:
                return  # given up on; another thread has replaced this one
