"""What the soft drawing term does to a cold start: with and without it, over several seeds.

For each seed two workdirs with the same perception phase, traces, their order and the number of steps:

    plain   the config's cold start, the term off
    soft    the same with the term (`soft_drawing.weight`, or 0.5 where the config has it off)

Both answer the same held-out mazes in free-running conversations. The cost of a step is in processor
seconds. Each run is resumed or skipped like any workdir.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vilasr_jax.bench.learn import difference, pooled, seconds_per_step
from vilasr_jax.config import JobConfig
from vilasr_jax.files import write_json
from vilasr_jax.job import train
from vilasr_jax.progress import progress_bar
from vilasr_jax.training.evaluate import evaluate
from vilasr_jax.training.run import open_run

WEIGHT = 0.5


def bench_soft(job: JobConfig, workdir: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Runs the missing arms; prints and returns the table, which is also saved in `soft.json`."""
    weight = job.soft_drawing.weight or WEIGHT
    folders: dict[str, list[Path]] = {"plain": [], "soft": []}
    for seed in seeds:
        for name in folders:
            arm = dataclasses.replace(
                job,
                seed=seed,
                stages=("cold_start",),
                soft_drawing=dataclasses.replace(job.soft_drawing, weight=weight if name == "soft" else 0.0),
            )
            home = workdir / f"seed_{seed}" / name
            if folders["plain"] and name == "soft":
                copy_perception(folders["plain"][-1].parents[1], home)
            folders[name].append(run_arm(arm, home, name))
        table = {
            "weight": weight,
            "steps": job.cold_start.steps,
            "step_cpu_seconds": {
                name: float(np.mean([seconds_per_step(path.parents[1] / "cold_start") for path in paths]))
                for name, paths in folders.items()
            },
            **pooled(folders),
            "soft_over_plain": difference(folders["plain"], folders["soft"]),
        }
        write_json(workdir / "soft.json", table)
    print_table(table)
    return table


def copy_perception(there: Path, here: Path) -> None:
    """Copies the tokenizer and the finished perception phase, which does not depend on the term."""
    for part in ("tokenizer", "cold_start/perception"):
        if not (here / part).exists() and (there / part).exists():
            draft = here / f"{part}.draft"
            shutil.rmtree(draft, ignore_errors=True)
            shutil.copytree(there / part, draft)
            draft.rename(here / part)


def run_arm(job: JobConfig, home: Path, name: str) -> Path:
    """Trains and scores one arm; returns the folder of its scores."""
    folder = home / "eval" / name
    if not (folder / "scores.json").exists():
        train(job, home)
        arm = open_run(job, home)
        rows = arm.tasks.rows("test", job.eval.rows)
        with progress_bar() as progress:
            bar = progress.add_task(f"evaluation: {name}", total=len(rows), note="")
            params = arm.stages.load_params("cold_start")
            evaluate(arm, params, rows, folder, name, lambda n: progress.update(bar, completed=n))
    return folder


def print_table(table: dict[str, Any]) -> None:
    """Prints the two arms, their difference, and the cost of a step."""
    for name, row in table["stages"].items():
        seeds = ", ".join(f"{accuracy:.1%}" for accuracy in row["by_seed"])
        low, high = row["ci95"]
        print(
            f"{name:6} right {row['accuracy']:.1%} ({low:.1%} to {high:.1%}; {seeds}), {row['n']} questions, "
            f"{row['drawings']:.1f} drawings, "
            f"{table['step_cpu_seconds'][name]:.2f} processor seconds per step"
        )
    gain, (low, high) = table["soft_over_plain"]["mean"], table["soft_over_plain"]["ci95"]
    print(f"soft over plain: {gain:+.1%}, 95 % interval {low:+.1%} to {high:+.1%}, paired, counting seeds")
