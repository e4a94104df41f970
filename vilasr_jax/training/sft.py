"""Supervised fine-tuning: the loop that cold start and reflection share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import grain
from rich.progress import Progress

from vilasr_jax.config import OptimizerSection
from vilasr_jax.parallel import put_batch
from vilasr_jax.processing import Batch
from vilasr_jax.training.context import Context
from vilasr_jax.training.optimizers import make_optimizer
from vilasr_jax.training.soft_drawing import SoftDrawing
from vilasr_jax.training.stage import Stage
from vilasr_jax.training.steps import TrainState, init_state, make_sft_step

LOG_EVERY = 10


def train_sft(
    context: Context,
    stage: Stage,
    params: Any,
    data: grain.DatasetIterator[Batch],
    optimizer: OptimizerSection,
    progress: Progress,
    validate_every: int = 0,
    validate: Callable[[Any], dict[str, float]] | None = None,
    soft: SoftDrawing | None = None,
) -> Any:
    """Trains for `stage.steps` steps, from its newest checkpoint if there is one; returns the parameters.

    Args:
      context: the job.
      stage: where checkpoints and metrics go.
      params: to start from when nothing is saved yet.
      data: an endless iterator of batches; its state is saved and restored with the parameters.
      optimizer: the Optax optimiser.
      progress: where the bar is shown.
      validate_every, validate: every so many steps `validate(params)` adds its figures to the metrics.
      soft: a term added to the loss; the examples are then marked for it.
    """
    transform = make_optimizer(optimizer, stage.steps)
    fresh = init_state(params, transform)
    done, items = stage.begin(
        {"params": fresh.params, "opt_state": fresh.opt_state, "count": {"step": fresh.step}, "data_iter": {}}
    )
    state = TrainState(items["params"], items["opt_state"], items["count"]["step"])
    if done:
        data.set_state(json.loads(items["data_iter"]["state"]))
    step_fn = make_sft_step(context.graphdef, transform, soft)
    bar = progress.add_task(stage.title, total=stage.steps, completed=done, note="")
    for step in range(done + 1, stage.steps + 1):
        state, metrics = step_fn(state, put_batch(context.mesh, next(data)))
        stage.note(metrics)
        extra = {}
        if validate and validate_every and step % validate_every == 0:
            extra = validate(state.params)
        if step % LOG_EVERY == 0 or stage.save_due(step) or extra:
            values = stage.log(step, **extra)
            progress.update(bar, note=f"loss {values['loss']:.3f}")
        if stage.save_due(step):
            items = {
                "params": state.params,
                "opt_state": state.opt_state,
                "count": {"step": state.step},
                "data_iter": {"state": json.dumps(data.get_state())},
            }
            stage.save(step, items)
        progress.update(bar, completed=step)
    stage.close()
    return state.params

