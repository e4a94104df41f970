"""What the soft drawing term does to a cold start: with and without it, over several seeds.

For each seed two workdirs that share the phase of seeing, the traces, their order and the number of steps:

    plain   the config's cold start, the term off
    soft    the same with the term (`soft_drawing.weight`, or 0.5 where the config has it off)

Both answer the same held-out mazes in free-running conversations. What a step costs is measured on the side:
both steps in turn on the same batch, so that a busy machine slows both. Each run is resumed or skipped like
any workdir.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vilasr_jax.bench.learn import difference, pooled
from vilasr_jax.config import JobConfig
from vilasr_jax.files import write_json
from vilasr_jax.job import evaluate, load_stage, train
from vilasr_jax.parallel import put_batch
from vilasr_jax.processing import collate
from vilasr_jax.progress import progress_bar
from vilasr_jax.training.cold_start import trace_source
from vilasr_jax.training.context import Context
from vilasr_jax.training.optimizers import make_optimizer
from vilasr_jax.training.state import init_state
from vilasr_jax.training.steps import make_sft_step

WEIGHT = 0.5


def bench_soft(job: JobConfig, workdir: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Runs all that is missing; prints and returns the table, which also grows in `soft.json`."""
    weight = job.soft_drawing.weight or WEIGHT
    folders: dict[str, list[Path]] = {"plain": [], "soft": []}
    for seed in seeds:
        for name in folders:
            arm = dataclasses.replace(
                job,
                seed=seed,
                stages=("cold_start",),
                soft_drawing=dataclasses.replace(
                    job.soft_drawing, weight=weight if name == "soft" else 0.0
                ),
            )
            home = workdir / f"seed_{seed}" / name
            if folders["plain"] and name == "soft":
                share_seeing(folders["plain"][-1].parents[1], home)
            folders[name].append(run(arm, home, name))
        table = {
            "weight": weight,
            "steps": job.cold_start.steps,
            **pooled(folders),
            "soft_over_plain": difference(folders["plain"], folders["soft"]),
        }
        write_json(workdir / "soft.json", table)
    table["step_seconds"] = step_seconds(folders["soft"][0].parents[1], job, weight)
    write_json(workdir / "soft.json", table)
    print_table(table)
    return table


def share_seeing(there: Path, here: Path) -> None:
    """Copies the tokenizer and the finished phase of seeing, which the term does not touch."""
    for part in ("tokenizer", "cold_start/perception"):
        if not (here / part).exists() and (there / part).exists():
            draft = here / f"{part}.draft"
            shutil.rmtree(draft, ignore_errors=True)
            shutil.copytree(there / part, draft)
            draft.rename(here / part)


def run(job: JobConfig, home: Path, name: str) -> Path:
    """Trains and scores one arm; returns the folder of its scores."""
    folder = home / "eval" / name
    if not (folder / "scores.json").exists():
        train(job, home)
        context = Context(job, home)
        rows = context.rows("test", job.eval.rows)
        with progress_bar() as progress:
            bar = progress.add_task(f"evaluation: {name}", total=len(rows), note="")
            params = load_stage(context, "cold_start")
            evaluate(context, params, rows, folder, name, lambda n: progress.update(bar, completed=n))
    return folder


def step_seconds(home: Path, job: JobConfig, weight: float, rounds: int = 10) -> dict[str, float]:
    """Median seconds of a training step without and with the term, the two taken in turn."""
    section = dataclasses.replace(job.soft_drawing, weight=weight)
    context = Context(dataclasses.replace(job, soft_drawing=section), home)
    source = context.marked(trace_source(context))
    batch = collate([source[i] for i in range(job.cold_start.batch)], buckets=context.buckets)
    batch = put_batch(context.mesh, batch)
    optimizer = make_optimizer(job.cold_start.optimizer, job.cold_start.steps)
    steps = {
        "plain": make_sft_step(context.graphdef, optimizer, mesh=context.mesh),
        "soft": make_sft_step(context.graphdef, optimizer, mesh=context.mesh, soft=context.soft_drawing),
    }
    states = {
        name: init_state(context.initial_params(), optimizer, context.mesh, job.cold_start.optimizer)
        for name in steps
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            states[name], metrics = step(states[name], batch)
            jax.block_until_ready(metrics)
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(taken[1:])) for name, taken in times.items()}


def print_table(table: dict[str, Any]) -> None:
    """The two arms, their difference, and what a step costs."""
    for name, row in table["stages"].items():
        seeds = ", ".join(f"{accuracy:.1%}" for accuracy in row["by_seed"])
        low, high = row["ci95"]
        print(
            f"{name:6} right {row['accuracy']:.1%} ({low:.1%} to {high:.1%}; {seeds}), {row['n']} questions, "
            f"{row['drawings']:.1f} drawings, {table['step_seconds'][name]:.2f} s a step"
        )
    gain, (low, high) = table["soft_over_plain"]["mean"], table["soft_over_plain"]["ci95"]
    print(f"soft over plain: {gain:+.1%}, 95 % interval {low:+.1%} to {high:+.1%}, over the mazes, paired")
