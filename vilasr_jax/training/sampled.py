"""Samples conversations, sifts them by a rule, and writes those kept shard by shard.

A stopped run goes on with the first shard that is missing: every question is asked once, and the files are
those of a run that was never stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.progress import Progress

from vilasr_jax.config import ReflectSection, SynthesisSection
from vilasr_jax.evaluation import score_all
from vilasr_jax.files import write_json
from vilasr_jax.parallel import barrier, is_writer
from vilasr_jax.rollout import Trajectory
from vilasr_jax.tasks.stored import shard_note, write_shard
from vilasr_jax.training.context import Context
from vilasr_jax.training.keep import RULES, sift

TIMING = "timing.jsonl"  # beside the shards: the processor seconds of each, which differ from run to run


def sample_shards(
    context: Context,
    params: Any,
    progress: Progress,
    *,
    stage: str,
    section: ReflectSection | SynthesisSection,
    rule: str,
    path: Callable[[int, int], Path],
    record: Callable[[Trajectory], bytes],
) -> tuple[list[Path], dict[str, int]]:
    """Asks the stage's questions; returns the shards that hold something, and the funnel's counts.

    Args:
      context, params, progress: the job, the model's parameters, and where the bar is shown.
      stage: "reflect" or "synthesis": which questions, and the random stream.
      section: questions, samples a question, questions a shard, and sampling.
      rule: the name in `RULES` of what is kept.
      path: the file of a shard, by its number and how many there are.
      record: a kept conversation as the bytes of a record.
    """
    count = -(-section.questions // section.shard)
    bar = progress.add_task(f"{stage}: sampling", total=section.questions, note="")
    paths, totals = [], dict.fromkeys(("sampled", *RULES[rule]), 0)
    for number in range(count):
        file = path(number, count)
        note = shard_note(file)
        if note is None:
            first = number * section.shard
            rows = context.questions(stage, min(section.shard, section.questions - first), first)
            requests = context.requests(rows, samples=section.samples, seed=first * section.samples)
            began = time.process_time()
            trajectories = context.generate(section.sampling, params, requests, context.key(stage))
            score_all(trajectories, context.reward)
            note, kept = sift(trajectories, rule)
            if is_writer():
                write_shard(file, map(record, kept), note)
                with (file.parent / TIMING).open("a") as timing:
                    spent = round(time.process_time() - began, 2)
                    timing.write(json.dumps({"shard": number, "cpu_seconds": spent}) + "\n")
            barrier("shard")
        totals = {name: totals[name] + note[name] for name in totals}
        paths += [file] if note["kept"] else []
        progress.update(
            bar,
            completed=min((number + 1) * section.shard, section.questions),
            note=" > ".join(f"{name} {value}" for name, value in totals.items()),
        )
    return paths, totals


def write_funnel(folder: Path, funnel: dict[str, int]) -> None:
    """Writes the counts to `funnel.json`."""
    if is_writer():
        write_json(folder / "funnel.json", funnel)
