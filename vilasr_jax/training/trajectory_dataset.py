"""Sampled conversations that pass a rule, saved shard by shard, and read as training examples.

A stopped run resumes with the first missing shard: every question is sampled once, and the files are those of
a run that was never stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from vilasr_jax.config import ReflectSection, SynthesisSection
from vilasr_jax.evaluation import score_all
from vilasr_jax.files import write_json
from vilasr_jax.model_bundle import ModelBundle
from vilasr_jax.parallel import barrier, from_writer, is_writer
from vilasr_jax.processing import Encoded
from vilasr_jax.rollout import Trajectory
from vilasr_jax.tasks.stored import shard_note, write_shard
from vilasr_jax.training.rejection_sampling import RULES, filter_trajectories
from vilasr_jax.training.run import Run

TIMING = "timing.jsonl"  # in the shards' folder: processor seconds of each, which differ from run to run


def sample_shards(
    run: Run,
    params: Any,
    progress: Progress,
    *,
    stage: str,
    section: ReflectSection | SynthesisSection,
    rule: str,
    path: Callable[[int, int], Path],
    record: Callable[[Trajectory], bytes],
) -> tuple[list[Path], dict[str, int]]:
    """Samples answers to the stage's questions; returns the shards with records, and the funnel's counts.

    Args:
      run, params, progress: the job, the model's parameters, and where the bar is shown.
      stage: "reflect" or "synthesis": which questions, and the random stream.
      section: questions, samples per question, questions per shard, and sampling.
      rule: a name in `RULES`; conversations that pass it are saved.
      path: the file of a shard, by its number and the number of shards.
      record: serialises a conversation.
    """
    count = -(-section.questions // section.shard)
    bar = progress.add_task(f"{stage}: sampling", total=section.questions, note="")
    paths, totals = [], dict.fromkeys(("sampled", *RULES[rule]), 0)
    for number in range(count):
        file = path(number, count)
        note = from_writer(partial(shard_note, file))
        if note is None:
            first = number * section.shard
            rows = run.questions.rows(stage, min(section.shard, section.questions - first), first)
            requests = run.questions.requests(rows, samples=section.samples, seed=first * section.samples)
            began = time.process_time()
            key = run.rollouts.key(stage)
            trajectories = run.rollouts.generate(section.sampling, params, requests, key)
            score_all(trajectories, run.reward)
            note, passed = filter_trajectories(trajectories, rule)
            if is_writer():
                write_shard(file, map(record, passed), note)
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


def trajectory_example(trajectory: Trajectory, model: ModelBundle, **extras: np.ndarray) -> Encoded:
    """A conversation as a training example: the sampled ids, and the mask that says which they are.

    Args:
      trajectory: the conversation.
      model: whose tokenizer it was sampled with.
      extras: [t] arrays, a value per token.
    """
    return Encoded(
        trajectory.tokens, trajectory.loss_mask, trajectory.images_in_tokens, model.tokenizer.special, extras
    )


def write_funnel(folder: Path, funnel: dict[str, int]) -> None:
    """Writes how many conversations passed each test to `funnel.json`."""
    if is_writer():
        write_json(folder / "funnel.json", funnel)
