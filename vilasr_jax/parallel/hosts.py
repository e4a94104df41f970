"""Small values exchanged between the hosts of a run, and which host writes its files.

Every host runs the same program (one process each). Arrays of a step are global; files are written by
process 0 alone, but for shards of sampled conversations; each host reads, samples and draws its own rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.experimental import multihost_utils

from vilasr_jax.errors import UserError

T = TypeVar("T")
SMALL = 1016  # bytes that a gather sends with their length
_LENGTH = 8


def is_writer() -> bool:
    """Whether this process writes the run's files."""
    return jax.process_index() == 0


def alone() -> bool:
    """Whether this is the run's only process."""
    return jax.process_count() == 1


def gather(value: Any) -> list[Any]:
    """Every process's `value` (JSON-able), in the order of the processes; all must call it."""
    if alone():
        return [value]
    return [json.loads(data) for data in gather_bytes(json.dumps(value, default=float).encode())]


def gather_bytes(data: bytes) -> list[bytes]:
    """Every process's bytes, in the order of the processes; all must call it.

    Up to `SMALL` bytes travel with their length in one all-gather; more of any process need a second one.
    """
    if alone():
        return [data]
    head = np.zeros(_LENGTH + SMALL, np.uint8)
    start = len(data).to_bytes(_LENGTH, "little") + data[:SMALL]
    head[: len(start)] = np.frombuffer(start, np.uint8)
    rows = _all_gather(head)
    lengths = [int.from_bytes(row[:_LENGTH].tobytes(), "little") for row in rows]
    if max(lengths) <= SMALL:
        rows = [row[_LENGTH:] for row in rows]
    else:
        padded = np.zeros(1 << (max(lengths) - 1).bit_length(), np.uint8)  # few sizes: each is compiled once
        padded[: len(data)] = np.frombuffer(data, np.uint8)
        rows = _all_gather(padded)
    return [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]


def _all_gather(row: np.ndarray) -> list[np.ndarray]:
    """Every process's [n] row, of the same n."""
    return [*np.asarray(multihost_utils.process_allgather(row)).reshape(-1, row.size)]


def gather_results(compute: Callable[[], T]) -> list[T]:
    """Every process's result of `compute` (JSON-able), in the order of the processes; all must call it.

    Raises:
      UserError, RuntimeError: `compute` raised in some process; then every process raises, none waits for it.
    """
    value, error = None, None
    try:
        value = compute()
    except Exception as raised:
        error = raised
    failure = error and {"user": isinstance(error, UserError), "text": str(error) or type(error).__name__}
    results = gather([value, failure])
    if error:
        raise error
    for number, (_, failure) in enumerate(results):
        if failure:
            kind = UserError if failure["user"] else RuntimeError
            raise kind(f"{failure['text']} (process {number} of {len(results)})")
    return [value for value, _ in results]


def from_writer(compute: Callable[[], T]) -> T:
    """The writing process's result of `compute` (JSON-able) in every process; see `gather_results`.

    Files that the writer is about to change are read this way, so that all processes see the same.
    """
    return cast(T, gather_results(lambda: compute() if is_writer() else None)[0])


def any_host(flag: bool) -> bool:
    """Whether `flag` is true in any process; all must call it."""
    return any(gather(bool(flag)))


def barrier(name: str) -> None:
    """Waits until all processes have called it; `name` is in the error message when one does not."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def to_host(tree: Any) -> Any:
    """The arrays' values where every process can read them; all must call it."""
    return tree if jax.process_count() == 1 else multihost_utils.process_allgather(tree, tiled=True)
