"""The devices of a TPU slice as plain objects: the numbers, hosts and places that libtpu gives them.

They serve wherever a run only reads its devices: meshes, shardings, shapes. `tests/parallel/test_mesh.py`
compares them with libtpu's own.
"""

import math
from dataclasses import dataclass
from itertools import product

from vilasr_jax.slices import Topology

KINDS = {"v5e": "TPU v5 lite", "v6e": "TPU v6 lite", "v5p": "TPU v5"}
BLOCK = (2, 2, 1)  # chips of a host


@dataclass(frozen=True)
class SliceDevice:
    """One chip."""

    id: int
    process_index: int
    coords: tuple[int, int, int]
    device_kind: str
    platform: str = "tpu"
    core_on_chip: int = 0
    slice_index: None = None


def slice_devices(topology: Topology) -> list[SliceDevice]:
    """All chips of a slice by number: x runs fastest, in the grid and among hosts."""
    sides = (*topology.sides, 1)[:3]
    hosts = tuple(math.ceil(side / part) for side, part in zip(sides, BLOCK, strict=True))
    found = []
    for z, y, x in product(*(range(side) for side in reversed(sides))):
        at = [c // part for c, part in zip((x, y, z), BLOCK, strict=True)]
        process = at[0] + hosts[0] * (at[1] + hosts[1] * at[2])
        found.append(SliceDevice(len(found), process, (x, y, z), KINDS[topology.chip.name]))
    return found
