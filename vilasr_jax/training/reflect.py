"""Stage 2, reflective rejection sampling: the model learns from its own self-corrected conversations.

A sampled conversation is kept when its answer is right, its format is right, and it reflects: a label is
drawn again at a later turn with other coordinates (arXiv 2506.09965, section 3). Samples are written shard by
shard, so a stopped run goes on with the first shard that is missing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from rich.progress import Progress

from vilasr_jax.errors import DataError
from vilasr_jax.evaluation import score_all
from vilasr_jax.files import write_json
from vilasr_jax.parallel import barrier, is_writer
from vilasr_jax.processing import Encoded
from vilasr_jax.rollout import Trajectory
from vilasr_jax.tasks.sources import MappedSource
from vilasr_jax.training.cold_start import trace_source
from vilasr_jax.training.context import Context
from vilasr_jax.training.sft import train_sft
from vilasr_jax.training.stage import Stage

FUNNEL = ("sampled", "parsed", "right", "reflective", "kept")


def reflect_stage(context: Context) -> Stage:
    """The fine-tuning on what was kept."""
    section = context.job.reflect
    return Stage(
        context.workdir / "reflect", section.steps, section.save_every, "reflect: learning", context.profile
    )


def is_reflective(trajectory: Trajectory) -> bool:
    """Whether a label was drawn again at a later turn with other coordinates."""
    return trajectory.corrected > 0


def funnel_of(trajectories: Sequence[Trajectory]) -> dict[str, int]:
    """How many conversations pass each test after the ones before it; "kept" are those that `keep` keeps."""
    parsed = [t for t in trajectories if t.stop_reason == "answer"]
    right = [t for t in parsed if t.reward["accuracy"] == 1]
    reflective = [t for t in right if is_reflective(t)]
    kept = [t for t in reflective if keep(t)]
    return dict(zip(FUNNEL, map(len, (trajectories, parsed, right, reflective, kept)), strict=True))


def keep(trajectory: Trajectory) -> bool:
    """The published rule: the answer is right, the format is right, and the model corrected itself."""
    reward = trajectory.reward
    right = trajectory.stop_reason == "answer" and reward["accuracy"] == 1 and reward["format"] == 1
    return right and is_reflective(trajectory)


def sample_traces(context: Context, params: Any, progress: Progress) -> list[Path]:
    """Samples the stage's questions and writes the kept conversations; returns the shard files."""
    section = context.job.reflect
    folder = context.workdir / "reflect" / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    count = -(-section.questions // section.shard)
    bar = progress.add_task("reflect: sampling", total=section.questions, note="")
    paths, totals = [], dict.fromkeys(FUNNEL, 0)
    for number in range(count):
        path = folder / f"{number:05d}-of-{count:05d}.array_record"
        note = path.with_suffix(".json")
        if not note.exists():
            began = time.process_time()
            first = number * section.shard
            some = min(section.shard, section.questions - first)
            rows = context.rows("rl", some, first=context.REFLECT_SEEDS + first)
            requests = context.requests(rows, samples=section.samples, seed=first * section.samples)
            trajectories = context.generate(section.sampling, params, requests, context.key("reflect"))
            score_all(trajectories, context.reward)
            if is_writer():
                draft = path.with_suffix(".draft")
                writer = ArrayRecordWriter(str(draft), "group_size:1")
                for trajectory in filter(keep, trajectories):
                    writer.write(trajectory.to_bytes())
                writer.close()
                draft.replace(path)
                write_json(note, {**funnel_of(trajectories), "cpu_seconds": time.process_time() - began})
            barrier("reflect shard")
        counts = json.loads(note.read_text())
        totals = {name: totals[name] + counts[name] for name in FUNNEL}
        paths += [path] if counts["kept"] else []
        progress.update(
            bar,
            completed=min((number + 1) * section.shard, section.questions),
            note=f"kept {totals['kept']} of {totals['sampled']}",
        )
    if is_writer():
        write_json(context.workdir / "reflect" / "funnel.json", totals)
    return paths


def encode_trajectory(context: Context, data: bytes) -> Encoded:
    """A stored conversation as a training example: the sampled ids, and the mask that says which they are."""
    trajectory = Trajectory.from_bytes(data)
    return trajectory_example(context, trajectory)


def trajectory_example(context: Context, trajectory: Trajectory, **extras: np.ndarray) -> Encoded:
    """A conversation as a training example; `extras` are per-token arrays."""
    return Encoded(
        trajectory.tokens,
        trajectory.loss_mask,
        trajectory.images_in_tokens,
        context.tokenizer.special,
        extras,
    )


def run_reflect(context: Context, params: Any, progress: Progress) -> Any:
    """Samples with `params`, fine-tunes them on what was kept; returns the parameters."""
    job, section = context.job, context.job.reflect
    stage = reflect_stage(context)
    if stage.done:
        return stage.load_params(context.abstract_params)
    paths = sample_traces(context, params, progress)
    if not paths:
        raise DataError(
            f"reflect: none of {section.questions} x {section.samples} sampled conversations was right, well "
            "formed and corrected itself; train the cold start longer, or raise config.cold_start.slip_share"
        )
    stored = grain.sources.ArrayRecordDataSource([str(path) for path in paths])
    kept = MappedSource(stored, lambda data: encode_trajectory(context, data))
    sources, weights = [kept], [section.kept_share]
    if section.kept_share < 1:
        sources, weights = [*sources, trace_source(context)], [*weights, 1 - section.kept_share]
    sources = [context.marked(source) for source in sources]
    data = context.batches(sources, weights, seed=job.seed + 2, batch=section.batch)
    return train_sft(
        context, stage, params, data, section.optimizer, progress,
        soft=context.soft_drawing, accumulate=section.accumulate,
    )  # fmt: skip
