"""From a step's cost to a range of seconds. Uncalibrated: no figure here was compared with a TPU.

The two ends, for one execution of a step on every chip:

- best: cycles at the inferred clock, kernels at the chip's peak, asynchronous collectives wholly hidden
  behind them unless they are slower, synchronous ones at the full bandwidth of the links; never less than
  reading once what every execution reads (decoding: weights and cache), at the memory's full bandwidth;
- worst: kernels at `KERNEL_FRACTION` of the peak, collectives at `LINK_FRACTION` of the bandwidth, not hidden
"""

from __future__ import annotations

import dataclasses

from vilasr_jax.plan.cost import Cost
from vilasr_jax.slices import Topology

KERNEL_FRACTION = 0.4
LINK_FRACTION = 0.7


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Seconds of one execution, at best and at worst."""

    compute: float  # cycles and kernels alone, at best
    synchronous: float  # collectives that nothing hides, at best
    asynchronous: float  # collectives that compute may hide, at best
    memory: float  # reading the bytes that each execution needs; 0: not computed
    best: float
    worst: float

    def utilisation(self, flops: float, topology: Topology) -> tuple[float, float]:
        """Model FLOPs per second over the slice's peak, at (worst, best)."""
        peak = topology.size * topology.chip.peak_flops
        return flops / (self.worst * peak), flops / (self.best * peak)


def predict(cost: Cost, topology: Topology, reads: float = 0.0) -> Prediction:
    """The range for a step that has to read `reads` bytes from a chip's memory."""
    chip = topology.chip
    cycles = cost.cycles / chip.clock
    kernels = cost.kernel_flops / chip.peak_flops

    def exchange(asynchronous: bool) -> float:
        return sum(
            c.bytes / topology.gather_bandwidth(c.group)
            for c in cost.collectives
            if c.asynchronous == asynchronous
        )

    synchronous, asynchronous = exchange(False), exchange(True)
    memory = reads / chip.hbm_bandwidth
    best = max(max(cycles + kernels, memory) + synchronous, asynchronous)
    worst = max(cycles + kernels / KERNEL_FRACTION, memory) + (synchronous + asynchronous) / LINK_FRACTION
    return Prediction(cycles + kernels, synchronous, asynchronous, memory, best, worst)
