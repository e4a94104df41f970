"""The number of steps of a stage: given by the config, or computed from epochs over the data.

The number is fixed when a stage begins and saved in its folder's `steps.json`, so that a restarted run ends
with the same step, and a finished stage is known without its data.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vilasr_jax.config import ColdStartSection, ReflectSection, RLSection
from vilasr_jax.errors import DataError
from vilasr_jax.files import write_json
from vilasr_jax.parallel import barrier, from_writer, is_writer
from vilasr_jax.tasks.stored import check_unchanged
from vilasr_jax.training.stage import Stage

FILE = "steps.json"

StageSection = ColdStartSection | ReflectSection | RLSection


def stage_steps(folder: Path, section: StageSection) -> int | None:
    """The number of steps of a stage; None while they depend on data that the stage has not counted yet."""
    if not section.epochs:
        return section.steps
    return json.loads((folder / FILE).read_text())["steps"] if (folder / FILE).exists() else None


def plan_steps(
    stage: Stage,
    section: StageSection,
    *,
    what: str,
    examples: int,
    rate: float,
    data: Mapping[str, str] | None = None,
) -> int:
    """Fixes and prints the steps of a stage that begins.

    Args:
      stage: `steps.json` is written to its folder; once it has saved a step, the number stays.
      section: its `epochs` or `steps` count.
      what: description of its training data, for the line that is printed.
      examples: number of different examples; 0: unlimited new ones.
      rate: examples per step, on average.
      data: the folders that hold the examples, with digests of their content; none where they are generated.

    Raises:
      DataError: the stage has begun with other data, or another number of examples.
    """
    folder, title, begun = stage.directory, stage.title, stage.begun
    digest = "".join((data or {}).values())
    known = from_writer(lambda: json.loads((folder / FILE).read_text()) if (folder / FILE).exists() else None)
    if begun and known:
        check_unchanged(title, known.get("data"), digest, [*(data or {})])
    if begun and known and known["examples"] != examples:
        raise DataError(
            f"{title}: began with {known['examples']:,} examples, and there are {examples:,} now ({what}); "
            "restore the data, or choose another --workdir"
        )
    if known is None or not begun:
        steps = math.ceil(section.epochs * examples / rate) if section.epochs else section.steps
        note: dict[str, Any] = {
            "steps": max(steps, 1),
            "examples": examples,
            "examples_per_step": round(rate, 2),
        }
        if digest:
            note["data"] = digest
        if is_writer():
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / FILE, note)
    barrier("steps")
    note = json.loads((folder / FILE).read_text())
    line = f"{title}: {what}; {note['steps']:,} steps of about {note['examples_per_step']:g}"
    if examples:
        line += f", {note['steps'] * note['examples_per_step'] / examples:.1f} passes"
    if is_writer():
        print(line, file=sys.stderr)
    return note["steps"]
