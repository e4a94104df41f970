"""The TPU kinds that a plan can be made for, and what their makers say of them.

Peaks and sizes are the published ones. The clock is inferred from peaks and from compiled programs: one
reason why predicted times are called uncalibrated.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re

from vilasr_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of TPU. A device is what JAX counts; all kinds here have one a chip."""

    name: str
    hbm_bytes: int  # that the compiler may use
    peak_flops: float  # bf16, a second
    hbm_bandwidth: float  # bytes a second
    link_bandwidth: float  # bytes a second, one interconnect link, one way
    clock: float  # cycles a second (inferred)
    torus_side: int  # a side of the topology that is at least this long closes to a ring
    chips_a_host: int


_GIB = 2**30
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v5e", int(15.75 * _GIB), 197e12, 819e9, 45e9, 1.5e9, 16, 4),
        Chip("v6e", int(31.25 * _GIB), 918e12, 1640e9, 90e9, 1.75e9, 16, 4),
        Chip("v5p", int(95.0 * _GIB), 459e12, 2765e9, 90e9, 1.75e9, 4, 4),
    )
}


# Slices as Google Cloud names them (it counts cores of v5p, two a chip).
_CLOUD_NAMES = {
    "v5e-4": "v5e:2x2",
    "v5e-8": "v5e:2x4",
    "v5e-16": "v5e:4x4",
    "v5e-32": "v5e:4x8",
    "v5e-64": "v5e:8x8",
    "v5e-128": "v5e:8x16",
    "v5e-256": "v5e:16x16",
    "v6e-4": "v6e:2x2",
    "v6e-8": "v6e:2x4",
    "v6e-16": "v6e:4x4",
    "v6e-32": "v6e:4x8",
    "v6e-64": "v6e:8x8",
    "v6e-128": "v6e:8x16",
    "v6e-256": "v6e:16x16",
    "v5p-8": "v5p:2x2x1",
    "v5p-16": "v5p:2x2x2",
    "v5p-32": "v5p:2x2x4",
    "v5p-64": "v5p:2x4x4",
    "v5p-128": "v5p:4x4x4",
    "v5p-256": "v5p:4x4x8",
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice: a kind of chip and the sides of its grid."""

    chip: Chip
    sides: tuple[int, ...]

    @property
    def size(self) -> int:
        """Chips."""
        return math.prod(self.sides)

    @property
    def name(self) -> str:
        """As the compiler and the command line call it, such as "v5e:8x8"."""
        return f"{self.chip.name}:{'x'.join(map(str, self.sides))}"

    def gather_bandwidth(self, devices: int) -> float:
        """Bytes a second that one device can take in when `devices` of the slice exchange data.

        A group longer than any side uses the links of every side, a smaller one those of one side; a side
        that closes to a ring brings data from both ends. An upper bound: no other traffic, no latency.
        """
        sides = sorted((side for side in self.sides if side > 1), reverse=True)
        used = sides if devices > max(sides) else sides[:1]
        links = sum(2 if side >= self.chip.torus_side else 1 for side in used)
        return links * self.chip.link_bandwidth


def parse_topology(name: str) -> Topology:
    """Reads "v5e:8x8" or "v5p:4x4x4", or Google Cloud's name of a slice, such as "v5e-64" or "v5p-128".

    Raises:
      ConfigError: no such chip or grid.

    >>> parse_topology("v5e:8x8").size
    64
    """
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)+)", _CLOUD_NAMES.get(name, name))
    if match is None or match[1] not in CHIPS:
        raise ConfigError(
            f"--topology={name}: give a chip and its grid, such as v5e:8x8, v6e:4x4 or v5p:4x4x4 "
            f"(chips: {', '.join(CHIPS)})"
        )
    chip, sides = CHIPS[match[1]], tuple(int(side) for side in match[2].split("x"))
    rank = 3 if chip.name == "v5p" else 2
    if len(sides) != rank or math.prod(sides) < 2 or 0 in sides:
        raise ConfigError(f"--topology={name}: a {chip.name} slice has {rank} sides and more than one chip")
    return Topology(chip, sides)


def compile_devices(topology: Topology) -> list:
    """The devices of a slice that is not there, to compile for. Needs the package `libtpu`, no TPU.

    Call it in a process of its own: the environment it sets is read once, when libtpu is loaded.

    Raises:
      ConfigError: libtpu is not installed, or does not know the topology.
    """
    os.environ.update(
        TPU_SKIP_MDS_QUERY="1",
        TPU_ACCELERATOR_TYPE="v5litepod-4",
        TPU_WORKER_HOSTNAMES="localhost",
        TPU_WORKER_ID="0",
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",
    )
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(topology_name=topology.name, platform="tpu").devices)
    except Exception as error:  # libtpu raises several types
        first = str(error).split("\n")[0]
        raise ConfigError(
            f"--topology={topology.name}: {first} (a plan needs `pip install libtpu`)"
        ) from None
