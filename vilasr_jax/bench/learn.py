"""Does drawing help, and does reinforcement learning? The controls of a config, over several seeds.

For each seed, in folders of their own:

    main       the config's stages: cold start, reflect, rl
    more_sft   the cold start's parameters trained further by SFT, for the processor time of reflect and rl
    direct     cold start on traces that answer at once, for as many training tokens (first seed)
    text       cold start on traces that write the coordinates as text, without drawing, likewise (first seed)

All answer the same held-out mazes in free-running conversations. Each run is resumed or skipped like any
workdir.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from vilasr_jax.config import JobConfig
from vilasr_jax.evaluation import ResultsFile
from vilasr_jax.evaluation.intervals import seed_interval
from vilasr_jax.files import split_lines, write_json
from vilasr_jax.job import train
from vilasr_jax.progress import progress_bar
from vilasr_jax.report import print_summary
from vilasr_jax.training.duration import stage_steps
from vilasr_jax.training.evaluate import evaluate
from vilasr_jax.training.examples import trace_source
from vilasr_jax.training.run import Run, open_run
from vilasr_jax.training.sft import train_sft
from vilasr_jax.training.stage import Stage
from vilasr_jax.training.trajectory_dataset import TIMING

CONTROLS = {"direct": "direct", "text": "text_coordinates"}


def bench_learn(job: JobConfig, workdir: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Runs missing stages and controls; prints and returns the pooled table, and saves it in `learn.json`."""
    folders: dict[str, list[Path]] = {}
    mains = {
        seed: dataclasses.replace(job, seed=seed, stages=("cold_start", "reflect", "rl", "eval"))
        for seed in seeds
    }
    for seed, main in mains.items():
        home = workdir / f"seed_{seed}"
        train(main, home / "main")
        for path in sorted((home / "main" / "eval").iterdir()):
            folders.setdefault(path.name, []).append(path)
        folders.setdefault("more_sft", []).append(more_sft(main, home))
        table = _table(folders)
        write_json(workdir / "learn.json", table)
    first = seeds[0]
    for form, name in CONTROLS.items():
        folders[name] = [control(mains[first], workdir / f"seed_{first}" / form, form, name)]
    table = _table(folders)
    write_json(workdir / "learn.json", table)
    print_summary(table)
    for name in ("rl_over_cold_start", "rl_over_more_sft"):
        d = table[name]
        print(f"{name}: {d['mean']:+.1%}, 95 % interval {d['ci95'][0]:+.1%} to {d['ci95'][1]:+.1%}")
    if len(seeds) == 1:
        print("One seed: the intervals count questions, not how runs differ.")
    return table


def _table(folders: dict[str, list[Path]]) -> dict[str, Any]:
    """The results so far."""
    return {
        **pooled(folders),
        "rl_over_cold_start": difference(folders["cold_start"], folders["rl"]),
        "rl_over_more_sft": difference(folders["more_sft"], folders["rl"]),
    }


def more_sft(job: JobConfig, home: Path) -> Path:
    """Trains the cold start's parameters further on its traces, for the processor time of reflect and rl.

    Returns the folder of the evaluation.
    """
    folder = home / "more_sft" / "eval"
    if (folder / "scores.json").exists():
        return folder
    run = open_run(job, home / "main")
    spent = sum(_spent(home / "main" / name) for name in ("reflect", "rl"))
    steps = max(1, round(spent / seconds_per_step(home / "main" / "cold_start")))
    stage = Stage(home / "more_sft", steps, job.cold_start.save_every, "control: more SFT")
    with progress_bar() as progress:
        if stage.done:
            params = stage.load_params(run.model.abstract_params)
        else:
            params = run.stages.load_params("cold_start")
            section = job.cold_start
            source = trace_source(job, run.tasks, run.model)
            data = run.batching.batches([source], [1], seed=job.seed + 3, batch=section.batch)
            params = train_sft(run, stage, params, data, section.optimizer, progress, loss=section.loss)
        _evaluate(run, params, folder, "more_sft", progress)
    return folder


def control(job: JobConfig, workdir: Path, form: str, name: str) -> Path:
    """The same model, seeing phase and training tokens, on another form of trace."""
    shorter = dataclasses.replace(job.cold_start, format=form, slip_fraction=0.0)
    steps = stage_steps(workdir.parent / "main" / "cold_start", job.cold_start) or job.cold_start.steps
    if not job.packing.tokens:  # a row is a conversation then, whatever its length
        drawn, short = (
            _mean_tokens(dataclasses.replace(job, cold_start=section), workdir)
            for section in (job.cold_start, shorter)
        )
        steps = round(steps * drawn / short)
    sampling = job.eval.sampling  # the complete answer is one turn here
    sampling = dataclasses.replace(sampling, max_turn_tokens=4 * sampling.max_turn_tokens)
    job = dataclasses.replace(
        job,
        stages=("cold_start",),
        cold_start=dataclasses.replace(shorter, steps=steps, epochs=0.0, validate_every=0),
        eval=dataclasses.replace(job.eval, sampling=sampling),
    )
    folder = workdir / "eval" / name
    if not (folder / "scores.json").exists():
        train(job, workdir)
        run = open_run(job, workdir)
        with progress_bar() as progress:
            _evaluate(run, run.stages.load_params("cold_start"), folder, name, progress)
    return folder


def _mean_tokens(job: JobConfig, workdir: Path) -> float:
    """Tokens of a training conversation, image tokens included."""
    run = open_run(job, workdir)
    source = trace_source(job, run.tasks, run.model)
    return float(np.mean([len(source[i]) for i in range(min(64, len(source)))]))


def _evaluate(run: Run, params: Any, folder: Path, name: str, progress: Progress) -> None:
    rows = run.tasks.rows("test", run.job.eval.rows)
    bar = progress.add_task(f"evaluation: {name}", total=len(rows), note="")
    evaluate(run, params, rows, folder, name, lambda n: progress.update(bar, completed=n))


def _spent(stage: Path) -> float:
    """Processor seconds of a stage's steps and its sampling, all threads; a restart begins a new count.

    Processor time, not the clock's: other work on the machine slows the clock's.
    """
    total, last = 0.0, 0.0
    for line in split_lines((stage / "metrics.jsonl").read_text()):
        now = json.loads(line)["cpu_seconds"]
        total += now - last if now >= last else now
        last = now
    timing = stage / "samples" / TIMING
    shards = split_lines(timing.read_text()) if timing.exists() else []
    return total + sum(json.loads(line)["cpu_seconds"] for line in shards)


def seconds_per_step(stage: Path) -> float:
    """Processor seconds of one step: the median over the log, so neither compiling nor validation counts."""
    lines = [json.loads(line) for line in split_lines((stage / "metrics.jsonl").read_text())]
    costs = [(b["cpu_seconds"] - a["cpu_seconds"]) / (b["step"] - a["step"]) for a, b in pairwise(lines)]
    return float(np.median([cost for cost in costs if cost > 0]))


def _right(folder: Path) -> dict[str, bool]:
    return {line["id"]: line["correct"] for line in ResultsFile(folder, 1).read()}


def pooled(folders: dict[str, list[Path]]) -> dict[str, Any]:
    """Each stage's figures as means over the seeds, with `seed_interval`s of the accuracy."""
    stages = {}
    for name, paths in folders.items():
        scores = [json.loads((path / "scores.json").read_text()) for path in paths]
        mean = {
            key: float(np.mean([s[key] for s in scores]))
            for key in ("accuracy", "drawings", "drew", "corrected", "errors", "format")
        }
        answers = [np.array(list(_right(path).values()), np.float64) for path in paths]
        low, high = seed_interval(answers)
        stages[name] = {
            **mean,
            "ci95": [max(0.0, low), min(1.0, high)],
            "n": sum(s["n"] for s in scores),
            "by_seed": [s["accuracy"] for s in scores],
        }
    return {"stages": stages}


def difference(before: list[Path], after: list[Path]) -> dict[str, Any]:
    """Accuracy gained, paired on the same mazes of the same seeds, with a `seed_interval`."""
    gains = []
    for a, b in zip(before, after, strict=True):
        one, two = _right(a), _right(b)
        gains.append(np.array([float(two[row]) - float(one[row]) for row in one]))
    return {
        "mean": float(np.mean([gain.mean() for gain in gains])),
        "ci95": list(seed_interval(gains)),
        "by_seed": [float(gain.mean()) for gain in gains],
    }
