"""Stage 2, reflective rejection sampling: the model learns from its own self-corrected conversations.

The rule "reflective" of `rejection_sampling` says which conversations it is trained on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grain
from rich.progress import Progress

from vilasr_jax.errors import DataError
from vilasr_jax.processing import Encoded
from vilasr_jax.rollout import Trajectory
from vilasr_jax.tasks.rows import Source
from vilasr_jax.tasks.sources import MappedSource
from vilasr_jax.training.duration import plan_steps
from vilasr_jax.training.run import Run
from vilasr_jax.training.sft import train_sft
from vilasr_jax.training.soft_drawing import mark, open_soft_drawing
from vilasr_jax.training.trajectory_dataset import sample_shards, trajectory_example, write_funnel


def sample_traces(run: Run, params: Any, progress: Progress) -> list[Path]:
    """Samples the stage's questions and saves what passes the rule; returns the shard files."""
    folder = run.workdir / "reflect"
    paths, funnel = sample_shards(
        run,
        params,
        progress,
        stage="reflect",
        section=run.job.reflect,
        rule="reflective",
        path=lambda number, count: folder / "samples" / f"{number:05d}-of-{count:05d}.array_record",
        record=Trajectory.to_bytes,
    )
    write_funnel(folder, funnel)
    return paths


def run_reflect(run: Run, params: Any, progress: Progress) -> Any:
    """Fine-tunes a model on its own corrected conversations, or on recorded ones; returns the parameters.

    Recorded ones are those of `config.data.reflect_traces`; where it names none, `params` answer questions,
    and the rule "reflective" filters the conversations.

    Args:
      run: the job and its parts.
      params: to sample with and to start from; the stage consumes them (see `resume_state`).
      progress: where bars are shown.

    Raises:
      DataError: no sampled conversation passed the rule.
    """
    job, section, batching = run.job, run.job.reflect, run.batching
    stage = run.stages["reflect"]
    if stage.done:
        return run.stages.load_params("reflect")

    # ------------------------------------------------ corrected conversations
    data: dict[str, str] = {}
    if job.data.reflect_traces:
        data = run.tasks.imported.digests("reflect_traces")
        corrected: Source[Encoded] = run.examples.recorded("reflect_traces")
        what = f"{len(corrected):,} recorded conversations ({', '.join(job.data.folders('reflect_traces'))})"
    else:
        corrected = _sampled_source(run, params, progress)
        what = f"{len(corrected):,} kept of {section.questions * section.samples:,} sampled conversations"

    # ------------------------------------------------ mixed with those of the cold start
    sources, weights = [corrected], [section.kept_fraction]
    if section.kept_fraction < 1:
        others, fractions = run.examples.traces
        data |= run.examples.trace_digests()
        sources += others
        weights += [(1 - section.kept_fraction) * fraction for fraction in fractions]
    rate = section.batch * batching.examples_per_row(sources, weights) * section.kept_fraction
    stage.steps = plan_steps(stage, section, what=what, examples=len(corrected), rate=rate, data=data)

    # ------------------------------------------------ train
    soft = open_soft_drawing(job.soft_drawing, run.model)
    return train_sft(
        run,
        stage,
        params,
        batching.batches(mark(sources, soft), weights, seed=job.seed + 2, batch=section.batch),
        section.optimizer,
        progress,
        soft=soft,
        accumulate=section.accumulate,
        loss=section.loss,
    )


def _sampled_source(run: Run, params: Any, progress: Progress) -> Source[Encoded]:
    """The conversations of `params` that pass the rule, as training examples."""
    section = run.job.reflect
    paths = sample_traces(run, params, progress)
    if not paths:
        raise DataError(
            f"reflect: none of {section.questions} x {section.samples} sampled conversations was right, "
            "well formed and corrected itself; train the cold start longer, or raise "
            "config.cold_start.slip_fraction"
        )
    stored = grain.sources.ArrayRecordDataSource([str(path) for path in paths])
    return MappedSource(stored, lambda data: trajectory_example(Trajectory.from_bytes(data), run.model))
