"""`vilasr watch`: the report of a job while it runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from vilasr_jax.report.page import render_report
from vilasr_jax.report.workdir import stage_label

_READ = (
    *("summary.json", "*/metrics.jsonl", "*/perception/metrics.jsonl", "*/funnel.json"),
    *("eval/**/results.jsonl", "*/samples/step_*/results.jsonl"),
)


def watch(workdir: Path, seconds: int, wait: Callable[[float], None] = time.sleep) -> None:
    """Writes `watch.html` into the workdir each time that something in it has changed, and a line of text.

    Args:
      workdir: of the job.
      seconds: between two looks; the page loads itself again as often.
      wait: how it waits; what this raises ends it.

    Raises:
      DataError: there is no such folder.
    """
    before = None
    while True:
        now = _changes(workdir)
        if now != before:
            path = render_report(workdir, live=seconds)
            print(f"{time.strftime('%H:%M:%S')} wrote {path}: {_newest(workdir)}", flush=True)
            before = now
        wait(seconds)


def _changes(workdir: Path) -> dict[Path, tuple[int, int]]:
    """The time and size of every file that a report reads."""
    stats = [(path, path.stat()) for pattern in _READ for path in workdir.glob(pattern)]
    return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in stats}


def _newest(workdir: Path) -> str:
    """The stage and step that were logged last."""
    files = [path for pattern in _READ[1:3] for path in workdir.glob(pattern)]
    if not files:
        return "no steps yet"
    file = max(files, key=lambda path: path.stat().st_mtime_ns)
    lines = file.read_text(errors="replace").splitlines()
    for line in reversed(lines):
        try:
            step = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError):  # a line that is being written
            continue
        return f"{stage_label(file.parent.relative_to(workdir).as_posix()).lower()}, step {step}"
    return "no steps yet"
