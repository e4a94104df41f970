"""Supervised fine-tuning: the training loop of cold start and reflection."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from rich.progress import Progress

from vilasr_jax.config import OptimizerSection
from vilasr_jax.parallel import gather_results, put_batch
from vilasr_jax.processing import Batch, used_lengths
from vilasr_jax.tasks.pipeline import Batches
from vilasr_jax.training import interrupt
from vilasr_jax.training.batching import Batching
from vilasr_jax.training.flops import flops_per_token
from vilasr_jax.training.optimizers import make_optimizer, make_schedule
from vilasr_jax.training.resume import resume_state, state_items
from vilasr_jax.training.row_filter import ReplacedExamples, read_notes
from vilasr_jax.training.run import Run
from vilasr_jax.training.soft_drawing import SoftDrawing
from vilasr_jax.training.stage import Stage
from vilasr_jax.training.step_loop import StepLoop
from vilasr_jax.training.steps import make_sft_step
from vilasr_jax.training.validation import Validation

LOG_EVERY = 10


def _next_batch(batching: Batching, data: Batches) -> tuple[Batch, list[dict[str, str]], bool]:
    """This host's rows of the next batch, unusable examples that all hosts replaced, and whether to stop.

    The hosts tell each other in one gather: the lengths of their rows, so that the batch has the smallest
    shape that all of them fit; what was replaced; and whether any had a stop request when it had read its
    rows. If one host has no batch, all hosts raise, so that none waits for it in the step.
    """
    mine: list[Batch] = []

    def read() -> tuple[Sequence[int], list[Any], bool]:
        mine.append(next(data))
        return used_lengths(mine[0]), list(data.replaced), interrupt.stop_requested_here()

    lengths, replaced, stops = zip(*gather_results(read), strict=True)
    batch = batching.agreed(mine[0], lengths)
    return batch, [line for part in replaced for line in part], any(stops)


def train_sft(
    run: Run,
    stage: Stage,
    params: Any,
    data: Batches,
    optimizer: OptimizerSection,
    progress: Progress,
    validation: Validation | None = None,
    soft: SoftDrawing | None = None,
    accumulate: int = 1,
    loss: str = "token_mean",
) -> Any:
    """Trains for `stage.steps` steps, from its newest checkpoint if there is one; returns the parameters.

    With an int8 base it returns None: they are read from the checkpoint and the weights it began with.

    Args:
      run: the model, the mesh and the workdir.
      stage: where checkpoints and metrics go.
      params: to start from when nothing is saved yet; the stage consumes them (see `resume_state`).
      data: endless batches; their state is saved and restored with the parameters.
      optimizer: its section of the config.
      progress: where the bar is shown.
      validation: adds its scores to the metrics.
      soft: a term added to the loss; `data` must then be marked for it.
      accumulate: number of parts in which a batch goes through the model.
      loss: how tokens are weighted, see `losses.sft_weights`.

    Raises:
      TrainingError: too many updates in a row had to be skipped.
      Stopped: after a stop request. The step whose batch was being read is finished and saved; on a single
        host, the step that it came in.
    """
    steps = stage.steps
    assert steps is not None, "the number of steps is known before training"
    transform = make_optimizer(optimizer, steps)
    schedule = make_schedule(optimizer, steps)
    steps_done, state, items = resume_state(run.mesh, stage, params, transform, optimizer, data_iter={})
    if steps_done:
        data.set_state(json.loads(items["data_iter"]["state"]))
    step_fn = make_sft_step(
        run.model.graphdef,
        transform,
        mesh=run.mesh,
        accumulate=accumulate,
        spike=optimizer.spike,
        soft=soft,
        loss=loss,
    )
    name = stage.directory.name
    replaced = ReplacedExamples(run.workdir, name, steps_done)
    counts = {
        f"left_out_{use}": note["count"] for use, note in read_notes(run.workdir).items() if use != name
    }
    stage.flops_per_token = flops_per_token(run.model.matmul_parameters, optimizer)

    def save(step: int, **options: Any) -> None:
        items = {**state_items(state), "data_iter": {"state": json.dumps(data.get_state())}}
        stage.save(step, items, **options)

    loop = StepLoop(
        stage,
        optimizer,
        schedule,
        save,
        progress,
        bar_metric="loss",
        steps_done=steps_done,
        log_every=LOG_EVERY,
    )
    with loop:
        if validation:
            validation.catch_up(steps_done, state.all_params, partial(save, wait=True))
        for step in loop:
            batch, lines, stop = _next_batch(run.batching, data)
            replaced.add(step, lines)
            stage.log_also = counts | ({f"left_out_{name}": len(replaced.lines)} if replaced.lines else {})
            state, metrics = step_fn(state, put_batch(run.mesh, batch))
            stage.note(metrics)
            scores = validation(step, state.all_params) if validation else {}
            stop = stop or scores is None or interrupt.stop_requested_alone()
            loop.finish(step, state.guard, scores or {}, stop=stop and step < steps)
    return None if optimizer.lora_base else state.all_params
