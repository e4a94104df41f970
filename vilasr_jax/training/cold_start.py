"""Stage 1, cold start: supervised fine-tuning on expert drawing traces."""

from __future__ import annotations

from functools import partial
from typing import Any

from rich.progress import Progress

from vilasr_jax.training.duration import plan_steps
from vilasr_jax.training.run import Run
from vilasr_jax.training.sft import train_sft
from vilasr_jax.training.soft_drawing import mark, open_soft_drawing
from vilasr_jax.training.validation import Validation, validate


def run_cold_start(run: Run, params: Any, progress: Progress) -> Any:
    """Trains on expert traces, resuming from the last checkpoint; returns the parameters.

    Args:
      run: the job and its parts.
      params: to start from; the stage consumes them (see `resume_state`).
      progress: where bars are shown.
    """
    job, section, batching = run.job, run.job.cold_start, run.batching
    stage = run.stages["cold_start"]
    if stage.done:
        return run.stages.load_params("cold_start")

    # ------------------------------------------------ perception: questions about marked images
    perception = run.stages.perception
    if perception.steps and perception.done:
        params = perception.load_params(run.model.abstract_params)
    elif perception.steps:
        data = batching.batches([run.examples.perception], [1], seed=job.seed, batch=section.perception_batch)
        optimizer = section.perception_optimizer
        params = train_sft(run, perception, params, data, optimizer, progress, loss=section.loss)

    # ------------------------------------------------ traces, and how many steps they need
    soft = open_soft_drawing(job.soft_drawing, run.model)
    sources, weights = run.examples.traces
    stage.steps = plan_steps(
        stage,
        section,
        what=run.examples.described(),
        examples=len(sources[0]),
        rate=section.batch * batching.examples_per_row(sources, weights) * weights[0],
        data=run.examples.trace_digests(),
    )

    # ------------------------------------------------ train
    return train_sft(
        run,
        stage,
        params,
        batching.batches(mark(sources, soft), weights, seed=job.seed + 1, batch=section.batch),
        section.optimizer,
        progress,
        validation=Validation(stage, section.validate_every, partial(validate, run)),
        soft=soft,
        accumulate=section.accumulate,
        loss=section.loss,
    )
