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
        """Queues `work`; its result, exception or a TimeoutError is in the job that is returned."""
        job = DrawingTask(work)
        self._queue.put(job)
        return job

    def wait(self, jobs: Iterable[DrawingTask], seconds: float) -> None:
        """Returns when all jobs are done, or older than `seconds`; gives up on those past the limit."""
        jobs = list(jobs)
        while True:
            now = time.monotonic()
            for job in jobs:
                if self.seconds and job.began is not None and now - job.began > self.seconds:
                    self._give_up(job)
            young = [job for job in jobs if not job.done() and now - job.submitted < seconds]
            if not young:
                return
            until = min(job.submitted + seconds for job in young)
            if self.seconds:
                until = min(until, now + self.seconds)
            wait(young, max(until - now, 0.001))

    def wait_any(self, jobs: Iterable[DrawingTask]) -> None:
        """Returns when a job is done; gives up on those past the limit."""
        jobs = list(jobs)
        while not any(job.done() for job in jobs):
            wait(jobs, 0.05, FIRST_COMPLETED)
            self.wait(jobs, 0)

    def _give_up(self, job: DrawingTask) -> None:
        try:
            job.set_exception(TimeoutError(f"it needed longer than {self.seconds:g} seconds"))
        except InvalidStateError:
            return  # it finished in the meantime
        self._start()

    def _start(self) -> None:
        threading.Thread(target=self._run, name="drawing", daemon=True).start()

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            job.began = time.monotonic()
            try:
                value, error = job.work(), None
            except BaseException as raised:
                value, error = None, raised
            self.worked += time.monotonic() - job.began
            try:
                job.set_result(value) if error is None else job.set_exception(error)
            except InvalidStateError:
                return  # given up on; another thread has replaced this one
