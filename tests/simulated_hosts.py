"""Threads that are the hosts of a run: what they gather goes through the code of `parallel.hosts`."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np

from vilasr_jax.parallel import hosts


class Hosts:
    """Simulated hosts, each a thread with its process index.

    Attributes:
      sent: bytes of each array that every host put into an all-gather.
    """

    def __init__(self, monkeypatch, count: int):
        self.count, self.sent = count, []
        self._me, self._board = threading.local(), [None] * count
        self._meeting = threading.Barrier(count, timeout=60)
        jax = SimpleNamespace(process_count=lambda: count, process_index=lambda: self._me.number)
        monkeypatch.setattr(hosts, "jax", jax)
        monkeypatch.setattr(hosts, "multihost_utils", SimpleNamespace(process_allgather=self._all_gather))

    def run(self, call: Callable[[int], Any]) -> list[Any]:
        """`call(number)` of every host, all at once; what a host raises is its result."""
        with ThreadPoolExecutor(self.count) as pool:
            return list(pool.map(lambda number: self._one(number, call), range(self.count)))

    def _one(self, number: int, call: Callable[[int], Any]) -> Any:
        self._me.number = number
        try:
            return call(number)
        except threading.BrokenBarrierError:
            raise
        except Exception as error:
            return error

    def _all_gather(self, row: np.ndarray) -> np.ndarray:
        self._board[self._me.number] = row
        if self._meeting.wait() == 0:
            self.sent.append(row.nbytes)
        found = np.stack(self._board)
        self._meeting.wait()
        return found
