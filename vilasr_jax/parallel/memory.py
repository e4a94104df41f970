"""The account of a device's memory: what a run will allocate, part by part."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from vilasr_jax.errors import ConfigError
from vilasr_jax.units import GIB as GIB
from vilasr_jax.units import byte_unit, bytes_text

TEMPORARIES = (
    "temporaries of the largest step"  # a part of an account: known ones, or all where it is compiled
)


@dataclasses.dataclass(frozen=True)
class Account:
    """The bytes on each device at one moment of a run; `str` of it is a sentence for a person.

    Attributes:
      moment: when, such as "rl, while sampling".
      parts: bytes on the fullest device, by name.
      limit: bytes of a device.
      advice: what to change when it does not fit.
      steps: names of the compiled steps that run at this moment.
    """

    moment: str
    parts: Mapping[str, int]
    limit: int
    advice: str
    steps: tuple[str, ...] = ()

    def with_temporaries(self, known: Mapping[str, int]) -> Account:
        """With the temporaries of the largest of its steps, where `known` (bytes by step) has any of them."""
        found = [known[step] for step in self.steps if step in known]
        largest = max(found, default=self.parts.get(TEMPORARIES, 0))
        return dataclasses.replace(self, parts={**self.parts, TEMPORARIES: largest})

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} = {bytes_text(size)}" for name, size in self.parts.items() if size)
        total, (unit, name) = bytes_text(self.total), byte_unit(max(self.total, self.limit))
        total = total.removesuffix(f" {name}")  # which is said once
        return f"{self.moment}: {parts}; in all {total} of {self.limit / unit:.3g} {name} on each device"

    def check(self) -> None:
        """Raises ConfigError when the parts are more than the limit."""
        if self.total > self.limit:
            raise ConfigError(f"it does not fit: {self}. {self.advice}")


def local_bytes(tree: Any) -> int:
    """Bytes on one device of arrays, or of their shapes; one without a sharding is on every device."""
    return sum(
        leaf.dtype.itemsize
        * math.prod(leaf.sharding.shard_shape(leaf.shape) if leaf.sharding else leaf.shape)
        for leaf in jax.tree.leaves(tree)
    )


def with_shardings(tree: Any, shardings: Any) -> Any:
    """The shapes and dtypes of `tree` (arrays or shapes) as `jax.ShapeDtypeStruct` with `shardings`."""
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree, shardings
    )


def device_limit(mesh: Mesh, limit_gib: float = 0.0) -> int:
    """Bytes of one of this process's devices in `mesh`: its own, or an equal part of this machine's memory.

    Args:
      mesh: over devices that are there.
      limit_gib: overrides it, in GiB; 0: no override.
    """
    if limit_gib:
        return int(limit_gib * GIB)
    return _own_limit(mesh) or host_limit() // len(mesh.local_devices)


def shared_memory(mesh: Mesh, limit_gib: float = 0.0) -> str:
    """Says, in brackets, that a limit of `device_limit` is a part of one memory; "" where it is not."""
    devices = mesh.local_devices
    if limit_gib or len(devices) == 1 or _own_limit(mesh):
        return ""
    kind = devices[0].platform.upper()
    return f" ({len(devices)} {kind} devices use this machine's {bytes_text(host_limit())} in equal parts)"


def _own_limit(mesh: Mesh) -> int:
    """Bytes of one of this process's devices that has memory of its own; else 0."""
    return (mesh.local_devices[0].memory_stats() or {}).get("bytes_limit", 0)


def host_limit(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may use: the machine's, or fewer that its control group has.

    Args:
      root: of the file system, where `proc` and `sys` are.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux
        return limits[0]
    for _, kinds, group in (line.split(":", 2) for line in groups if line.count(":") >= 2):
        if kinds and "memory" not in kinds.split(","):
            continue
        place, name = ("memory", "memory.limit_in_bytes") if kinds else ("", "memory.max")  # versions 1 and 2
        top = root / "sys/fs/cgroup" / place
        inner = top / group.lstrip("/")
        for folder in (inner, *inner.parents):  # a limit holds for all groups below
            if not folder.is_relative_to(top):
                break
            with contextlib.suppress(OSError, ValueError):  # the top has none, and "max" is no number
                limits.append(int((folder / name).read_text()))
    return min(limits)
