"""Bytes that leave a host in a step, counted by the code that sends them, and those of a checkpoint.

Weights and gradients travel between chips, and are part of the compiled steps.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np

from vilasr_jax.parallel.hosts import SMALL
from vilasr_jax.plan.simulation.host_costs import HostCosts
from vilasr_jax.plan.simulation.lengths import Lengths
from vilasr_jax.rollout import Trajectory, without_images

GATHERED = SMALL + 8  # bytes of a small gather, a host


def step_traffic(groups: Sequence[Sequence[Lengths]], hosts: int, side: int) -> dict[str, int]:
    """Bytes that a host gives to, and receives from, the gathers of an RL step; pictures are not among them.

    Args:
      groups: the conversations about each question, all of which have a gradient.
      hosts: each sends what it sampled.
      side: pixels of an image.
    """
    if hosts == 1:
        return {"sent": 0, "received": 0}
    outcomes, conversations = [], []
    for host in range(hosts):
        mine = {number: groups[number] for number in range(host, len(groups), hosts)}
        outcomes.append(
            json.dumps([[n, [[0.5, one.sampled, False] for one in mine[n]]] for n in mine]).encode()
        )
        sent = {(n, k): sent_conversation(one, n, side) for n in mine for k, one in enumerate(mine[n])}
        conversations.append(pickle.dumps(sent))
    given = sum(gathered_bytes([len(data) for data in every]) for every in (outcomes, conversations))
    given += 2 * GATHERED  # a stop request, and the metrics
    return {"sent": given, "received": hosts * given}


def gathered_bytes(lengths: Sequence[int]) -> int:
    """Bytes that each host gives to `parallel.gather_bytes`, for the lengths of all hosts' data."""
    most = max(lengths)
    return GATHERED if most <= SMALL else GATHERED + (1 << (most - 1).bit_length())


def sent_conversation(lengths: Lengths, number: int, side: int) -> bytes:
    """A conversation of these lengths as hosts send it: random ids, log-probabilities and letters."""
    rng, t = np.random.default_rng([3, number, lengths.tokens]), lengths.tokens
    turns = [
        {
            "text": rng.integers(97, 123, 4 * turn.tokens, np.uint8).tobytes().decode(),
            "calls": [],
            "error": None,
            "drawn": [2] * turn.images,
            "corrected": 0,
        }
        for turn in lengths.turns
    ]
    mask = np.zeros(t, bool)
    mask[t - lengths.sampled :] = True
    logprobs = np.where(mask, -rng.exponential(size=t), 0).astype(np.float32)
    ids = rng.integers(0, 151_000, t).astype(np.int32)
    images: Any = [_Sized((side, side))] * (lengths.images + lengths.drawn)
    return without_images(
        Trajectory(
            f"{number}/0", ids, mask, logprobs, images, turns, "answer", lengths.images, len(images), {}
        )
    )


@dataclasses.dataclass(frozen=True)
class _Sized:
    """In the place of an image: its size is what is sent."""

    size: tuple[int, int]


def saving_seconds(size: int, costs: HostCosts, seconds: float, every: int) -> float:
    """What checkpoints cost each step: a copy to the host's memory, and waiting for the files of the last.

    Args:
      size: bytes of a host's part of a checkpoint.
      costs: of the host.
      seconds: of a step without it.
      every: steps between two; 0: none.
    """
    if not every:
        return 0.0
    writing = max(size / (1e9 * costs.save_gbs) - every * seconds, 0.0)
    return (size / (1e9 * costs.copy_gbs) + writing) / every
