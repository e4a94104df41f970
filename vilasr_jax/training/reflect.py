"""Stage 2, reflective rejection sampling: the model learns from its own self-corrected conversations.

Which sampled conversations are kept is the rule "reflective" of `keep`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grain
import numpy as np
from rich.progress import Progress

from vilasr_jax.errors import DataError
from vilasr_jax.processing import Encoded
from vilasr_jax.rollout import Trajectory
from vilasr_jax.tasks.sources import MappedSource
from vilasr_jax.training.cold_start import recorded_source, trace_sources
from vilasr_jax.training.context import Context
from vilasr_jax.training.duration import conversations_per_row, plan_steps, stage_steps
from vilasr_jax.training.sampled import sample_shards, write_funnel
from vilasr_jax.training.sft import train_sft
from vilasr_jax.training.stage import Stage


def reflect_stage(context: Context) -> Stage:
    """The fine-tuning on what was kept."""
    section, folder = context.job.reflect, context.workdir / "reflect"
    steps = stage_steps(folder, section)
    return Stage(folder, steps, section.save_every, "reflect: learning", context.profile)


def sample_traces(context: Context, params: Any, progress: Progress) -> list[Path]:
    """Samples the stage's questions and writes the kept conversations; returns the shard files."""
    folder = context.workdir / "reflect"
    paths, funnel = sample_shards(
        context,
        params,
        progress,
        stage="reflect",
        section=context.job.reflect,
        rule="reflective",
        path=lambda number, count: folder / "samples" / f"{number:05d}-of-{count:05d}.array_record",
        record=Trajectory.to_bytes,
    )
    write_funnel(folder, funnel)
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
    """Fine-tunes `params` on their own corrected conversations, or on recorded ones; returns the parameters.

    Recorded ones are those of `config.data.reflect_traces`; where it names none, `params` answer questions,
    and the rule says which conversations are kept.

    Raises:
      DataError: no sampled conversation was kept.
    """
    job, section = context.job, context.job.reflect
    stage = reflect_stage(context)
    if stage.done:
        return stage.load_params(context.abstract_params)
    if job.data.reflect_traces:
        kept = recorded_source(context, "reflect_traces")
        what = f"{len(kept):,} recorded conversations ({', '.join(job.data.folders('reflect_traces'))})"
    else:
        kept = _sampled_source(context, params, progress)
        what = f"{len(kept):,} kept of {section.questions * section.samples:,} sampled conversations"
    sources, weights = [kept], [section.kept_fraction]
    if section.kept_fraction < 1:
        others, shares = trace_sources(context)
        sources += others
        weights += [(1 - section.kept_fraction) * share for share in shares]
    rate = section.batch * conversations_per_row(sources, weights, context.packing)
    folder, rate = stage.directory, rate * section.kept_fraction
    stage.steps = plan_steps(folder, section, stage.title, what, len(kept), rate, stage.begun)
    sources = [context.marked(source) for source in sources]
    data = context.batches(sources, weights, seed=job.seed + 2, batch=section.batch)
    return train_sft(
        context,
        stage,
        params,
        data,
        section.optimizer,
        progress,
        soft=context.soft_drawing,
        accumulate=section.accumulate,
        loss=section.loss,
    )


def _sampled_source(context: Context, params: Any, progress: Progress) -> MappedSource:
    """What `params` are asked and answer, and the rule keeps, as training examples."""
    section = context.job.reflect
    paths = sample_traces(context, params, progress)
    if not paths:
        raise DataError(
            f"reflect: none of {section.questions} x {section.samples} sampled conversations was right, "
            "well formed and corrected itself; train the cold start longer, or raise "
            "config.cold_start.slip_fraction"
        )
    stored = grain.sources.ArrayRecordDataSource([str(path) for path in paths])
    return MappedSource(stored, lambda data: encode_trajectory(context, data))
