"""Where a run was started: date, versions, devices and commit, noted in its workdir at each start."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import vilasr_jax

STARTS = "starts.jsonl"  # in a workdir: one line for each command that ran it
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def environment() -> dict[str, Any]:
    """{"date", "command", "python", "versions", "devices", "commit"} of this process, with JAX's devices."""
    import jax

    kinds = [device.device_kind for device in jax.devices()]
    devices = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["vilasr", *sys.argv[1:]]),
        "python": platform.python_version(),
        "versions": {"vilasr_jax": vilasr_jax.__version__, **_versions()},
        "devices": ", ".join(f"{count} x {kind}" for kind, count in devices.items()),
        "commit": _commit(),
    }


def note_start(workdir: Path) -> None:
    """Adds this process to the workdir's list of starts."""
    with (workdir / STARTS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(environment()) + "\n")


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    """The commit of the package's clone, with a plus where files have changed; empty outside of one."""
    root = Path(vilasr_jax.__file__).parent.parent
    if not (root / ".git").exists():
        return ""
    try:
        words = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=+"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
