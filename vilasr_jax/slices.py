"""TPU slices: chips, hosts, grid and memory, in one table for plans, tests of layouts and `launch/`.

    python3 -m vilasr_jax.slices gke v5e:8x8             GKE's accelerator, the grid and the number of hosts
    python3 -m vilasr_jax.slices runtime v5litepod-64    the runtime of a Cloud TPU VM

Peaks and sizes are the published ones. The clock is inferred from peaks and from compiled programs: one
reason why predicted times are called uncalibrated.
"""

from __future__ import annotations

import dataclasses
import glob
import math
import re
import sys

from vilasr_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of TPU. A device is what JAX counts; all kinds here have one per chip."""

    name: str
    hbm_bytes: int  # available to the compiler
    peak_flops: float  # bf16, per second
    hbm_bandwidth: float  # bytes per second
    link_bandwidth: float  # bytes per second, one interconnect link, one way
    clock: float  # cycles per second (inferred)
    torus_side: int  # a side of the grid that is at least this long closes to a ring
    chips_per_host: int
    cloud: str  # accelerator type of a Cloud TPU VM, before the number
    runtime: str  # of a Cloud TPU VM
    gke: str  # accelerator label of a GKE node


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice: a kind of chip and the sides of its grid."""

    chip: Chip
    sides: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of chips."""
        return math.prod(self.sides)

    @property
    def hosts(self) -> int:
        """Number of hosts."""
        return max(1, self.size // self.chip.chips_per_host)

    @property
    def grid(self) -> str:
        """The sides, such as "8x8"."""
        return "x".join(map(str, self.sides))

    @property
    def name(self) -> str:
        """The name for the compiler and the command line, such as "v5e:8x8"."""
        return f"{self.chip.name}:{self.grid}"

    def gather_bandwidth(self, devices: int) -> float:
        """Bytes per second that one device can receive when `devices` of the slice exchange data.

        A group longer than any side uses the links of every side, a smaller one those of one side; a side
        that closes to a ring brings data from both ends. An upper bound: no other traffic, no latency.
        """
        sides = sorted((side for side in self.sides if side > 1), reverse=True)
        used = sides if devices > max(sides, default=0) else sides[:1]
        links = sum(2 if side >= self.chip.torus_side else 1 for side in used)
        return links * self.chip.link_bandwidth


_GIB = 2**30
CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            "v5e",
            int(15.75 * _GIB),
            197e12,
            819e9,
            45e9,
            1.5e9,
            16,
            4,
            "v5litepod",
            "v2-alpha-tpuv5-lite",
            "tpu-v5-lite-podslice",
        ),
        Chip(
            "v6e",
            int(31.25 * _GIB),
            918e12,
            1640e9,
            90e9,
            1.75e9,
            16,
            4,
            "v6e",
            "v2-alpha-tpuv6e",
            "tpu-v6e-slice",
        ),
        Chip(
            "v5p",
            int(95.0 * _GIB),
            459e12,
            2765e9,
            90e9,
            1.75e9,
            4,
            4,
            "v5p",
            "v2-alpha-tpuv5",
            "tpu-v5p-slice",
        ),
    )
}
_SQUARE = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_GRIDS = {
    "v5e": _SQUARE,
    "v6e": _SQUARE,
    "v5p": ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4), (4, 4, 4), (4, 4, 8)),
}
# By Google Cloud's name, small to large within a kind. It counts cores of v5p, two per chip.
SLICES = {
    f"{kind}-{math.prod(sides) * (2 if kind == 'v5p' else 1)}": Topology(CHIPS[kind], sides)
    for kind, grids in _GRIDS.items()
    for sides in grids
}


def parse_topology(name: str) -> Topology:
    """Reads "v5e:8x8" or "v5p:4x4x4", or Google Cloud's name of a slice, such as "v5e-64" or "v5p-128".

    Raises:
      ConfigError: no such chip or grid.

    >>> parse_topology("v5e:8x8") == parse_topology("v5e-64") == SLICES["v5e-64"]
    True
    """
    if name in SLICES:
        return SLICES[name]
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)+)", name)
    if match is None or match[1] not in CHIPS:
        raise ConfigError(
            f"--topology={name}: give a chip and its grid, such as v5e:8x8, v6e:4x4 or v5p:4x4x4 "
            f"(chips: {', '.join(CHIPS)})"
        )
    chip, sides = CHIPS[match[1]], tuple(int(side) for side in match[2].split("x"))
    rank = len(_GRIDS[chip.name][0])
    single = math.prod(sides) == 1 and sides not in _GRIDS[chip.name]
    if len(sides) != rank or single or 0 in sides:
        many = "" if (1,) * rank in _GRIDS[chip.name] else " and more than one chip"
        raise ConfigError(f"--topology={name}: a {chip.name} slice has {rank} sides{many}")
    return Topology(chip, sides)


def has_chips() -> bool:
    """Whether this machine has TPU chips, whatever drives them."""
    return bool(glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*"))


def main(argv: list[str]) -> int:
    """Entry point of `python3 -m vilasr_jax.slices`, for shell scripts; returns the exit code."""
    what, name = argv
    if what == "gke":
        try:
            found = parse_topology(name)
        except ConfigError as error:
            print(error, file=sys.stderr)
            return 2
        print(found.chip.gke, found.grid, found.hosts)
        return 0
    kind = name.rpartition("-")[0]
    print(*(chip.runtime for chip in CHIPS.values() if chip.cloud == kind))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
