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
from vilasr_jax.training.cold_start import trace_sources
from vilasr_jax.training.context import Context
from vilasr_jax.training.sampled import sample_shards, write_funnel
from vilasr_jax.training.sft import train_sft
from vilasr_jax.training.stage import Stage


def reflect_stage(context: Context) -> Stage:
    """The fine-tuning on what was kept."""
    section = context.job.reflect
    return Stage(
        context.workdir / "reflect", section.steps, section.save_every, "reflect: learning", context.profile
    )


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
        others, shares = trace_sources(context)
        sources += others
        weights += [(1 - section.kept_share) * share for share in shares]
    sources = [context.marked(source) for source in sources]
    data = context.batches(sources, weights, seed=job.seed + 2, batch=section.batch)
    return train_sft(
        context, stage, params, data, section.optimizer, progress,
        soft=context.soft_drawing, accumulate=section.accumulate,
    )  # fmt: skip
