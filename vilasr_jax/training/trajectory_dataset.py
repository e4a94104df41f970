"""Sampled conversations that pass a rule, saved shard by shard, and read as training examples.

A stopped run resumes with the first missing shard: every question is sampled once, and the files are those of
a run that was never stopped.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from vilasr_jax.config import ReflectSection, SynthesisSection
from vilasr_jax.errors import Stopped
from vilasr_jax.evaluation import score_all
from vilasr_jax.files import write_json
from vilasr_jax.model_bundle import ModelBundle
from vilasr_jax.parallel import from_writer, gather_results, is_writer
from vilasr_jax.processing import Encoded, size_grid
from vilasr_jax.progress import COMPILING
from vilasr_jax.rollout import RedrawnImages, Request, Trajectory
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

    On several hosts each samples and writes other shards, and no conversation travels: the files are those of
    a single host. A host that has none left waits for the others.

    Args:
      run, params, progress: the job, the model's parameters, and where the bar is shown.
      stage: "reflect" or "synthesis": which questions, and the random stream.
      section: questions, samples per question, questions per shard, and sampling.
      rule: a name in `RULES`; conversations that pass it are saved.
      path: the file of a shard, by its number and the number of shards.
      record: serialises a conversation.

    Raises:
      Stopped: after a stop request on any host; finished shards stay.
    """
    count = -(-section.questions // section.shard)
    host, hosts = run.batching.host

    def add_questions(requests: list[Request], number: int | None) -> None:
        """Adds those of a shard."""
        if number is None:
            return
        first = number * section.shard
        rows = run.questions.rows(stage, min(section.shard, section.questions - first), first)
        requests += run.questions.requests(rows, samples=section.samples, seed=first * section.samples)

    def sample(number: int | None, requests: Sequence[Request]) -> dict[str, Any] | None:
        """Samples and writes a shard; returns its counts, None after a stop request."""
        began, key = time.process_time(), run.rollouts.key(stage)
        try:  # with the other hosts, as their weights are laid out jointly, even if there are no questions
            found = run.rollouts.sample_here(section.sampling, params, requests, key)
        except Stopped:
            return None
        if number is None:
            return {}
        score_all(found, run.reward)
        note, passed = filter_trajectories(found, rule)
        write_shard(path(number, count), map(record, passed), note)
        return {"shard": number, "note": note, "cpu_seconds": round(time.process_time() - began, 2)}

    run.questions.source(stage)  # finds the usable ones, with the other hosts
    notes: list[Any] = from_writer(lambda: [shard_note(path(number, count)) for number in range(count)])
    missing = [number for number, note in enumerate(notes) if note is None]
    sampled = (count - len(missing)) * section.shard
    if sampled and missing and is_writer():
        print(f"{stage}: resuming after {sampled} sampled questions of {section.questions}", file=sys.stderr)
    note = COMPILING if missing else ""
    bar = progress.add_task(f"{stage}: sampling", total=section.questions, note=note)
    for first in range(0, len(missing), hosts):
        numbers = missing[first : first + hosts]
        mine = numbers[host] if host < len(numbers) else None
        requests: list[Request] = []
        gather_results(partial(add_questions, requests, mine))  # a host that can't read one stops all
        results = gather_results(partial(sample, mine, requests))
        for result in sorted(filter(None, results), key=lambda one: one["shard"]):
            notes[result["shard"]] = result.pop("note")
            if is_writer():
                with (path(0, count).parent / TIMING).open("a") as timing:
                    timing.write(json.dumps(result) + "\n")
        if None in results:
            raise Stopped(f"{stage}: stopped while conversations were sampled")
        done = min((first + hosts + count - len(missing)) * section.shard, section.questions)
        totals = _summed(notes, rule)
        text = " > ".join(f"{name} {value}" for name, value in totals.items())
        progress.update(bar, completed=done, note=text)
    paths = [path(number, count) for number, note in enumerate(notes) if note["kept"]]
    return paths, _summed(notes, rule)


def _summed(notes: Sequence[Any], rule: str) -> dict[str, int]:
    """The counts of the finished shards, added up."""
    return {name: sum(note[name] for note in notes if note) for name in ("sampled", *RULES[rule])}


def trajectory_example(trajectory: Trajectory, model: ModelBundle, **extras: np.ndarray) -> Encoded:
    """A conversation as a training example: the sampled ids, and the mask that says which they are.

    Images that have to be drawn again (`RedrawnImages`) are not drawn yet.

    Args:
      trajectory: the conversation.
      model: whose tokenizer it was sampled with.
      extras: [t] arrays, a value per token.
    """
    images, special = trajectory.images_in_tokens, model.tokenizer.special
    sizes = images.sizes if isinstance(images, RedrawnImages) else [image.size for image in images]
    grids = [size_grid(size, special.family.images) for size in sizes]
    return Encoded(trajectory.tokens, trajectory.loss_mask, images, special, extras, grids)


def write_funnel(folder: Path, funnel: dict[str, int]) -> None:
    """Writes how many conversations passed each test to `funnel.json`."""
    if is_writer():
        write_json(folder / "funnel.json", funnel)
