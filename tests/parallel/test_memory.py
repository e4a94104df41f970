"""The memory that a process may use."""

import os

import pytest

from vilasr_jax.parallel.memory import host_limit

PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
MIB = 1 << 20


@pytest.mark.parametrize(
    "group, limits, expected",
    [
        ("0::/", {}, PHYSICAL),
        ("0::/", {"memory.max": "max"}, PHYSICAL),
        ("0::/", {"memory.max": 300 * MIB}, 300 * MIB),
        # A job below a limited group, and one that has less itself.
        ("0::/slurm/job", {"slurm/memory.max": 200 * MIB, "slurm/job/memory.max": "max"}, 200 * MIB),
        ("0::/slurm/job", {"slurm/memory.max": 200 * MIB, "slurm/job/memory.max": 100 * MIB}, 100 * MIB),
        # Version 1, where a container may be given the group of its host, whose folder it does not see.
        ("5:cpu:/\n4:memory:/docker/ab12", {"memory/memory.limit_in_bytes": 50 * MIB}, 50 * MIB),
        ("4:memory:/", {"memory/memory.limit_in_bytes": 1 << 62}, PHYSICAL),
    ],
)
def test_a_container_has_less_than_its_machine(tmp_path, group, limits, expected):
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text(f"{group}\n")
    for name, limit in limits.items():
        path = tmp_path / "sys" / "fs" / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{limit}\n")
    assert host_limit(tmp_path) == expected


def test_a_system_without_control_groups(tmp_path):
    assert host_limit(tmp_path) == PHYSICAL
