"""Supervised fine-tuning: the training loop of cold start and reflection."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import optax
from jax.sharding import Mesh
from rich.progress import Progress

from vilasr_jax.config import OptimizerSection
from vilasr_jax.models.sharding import param_shardings
from vilasr_jax.parallel import gather_results, put_batch
from vilasr_jax.processing import Batch, used_lengths
from vilasr_jax.tasks.pipeline import Batches
from vilasr_jax.training import interrupt
from vilasr_jax.training.batching import Batching
from vilasr_jax.training.lora import Base
from vilasr_jax.training.optimizers import make_optimizer, make_schedule
from vilasr_jax.training.row_filter import ReplacedExamples, read_notes
from vilasr_jax.training.run import Run
from vilasr_jax.training.soft_drawing import SoftDrawing
from vilasr_jax.training.stage import Stage
from vilasr_jax.training.state import Guard, TrainState, abstract_state, init_state, split_frozen
from vilasr_jax.training.step_loop import StepLoop
from vilasr_jax.training.steps import make_sft_step
from vilasr_jax.training.validation import Validation

LOG_EVERY = 10


def resume_state(
    mesh: Mesh,
    stage: Stage,
    params: Any,
    transform: optax.GradientTransformation,
    section: OptimizerSection,
    **more: Any,
) -> tuple[int, TrainState, dict[str, Any]]:
    """Returns (steps done, state, items): a new state around `params`, or what the stage saved last.

    The stage consumes `params`: the first step donates them, and where it resumes from a checkpoint they are
    freed before that is read. So the weights are held once; copy what you still need.

    Args:
      mesh: over which the state is sharded.
      stage: whose newest checkpoint is read.
      params: the parameters, or only their shapes where the stage resumes.
      transform: the Optax optimiser.
      section: its section of the config; says what is frozen.
      more: further items of the checkpoint, with their values before the first step.
    """
    abstract = abstract_state(params, transform, mesh, section)
    places = param_shardings(params, mesh)
    shapes = jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), params, places)
    lora = isinstance(abstract.frozen, Base)
    state = None
    if lora or not stage.begun:  # with LoRA the frozen weights are not in the checkpoint
        state = init_state(params, transform, mesh, section)
    else:
        _free(params)
    done, items = stage.begin({**state_items(abstract, shapes), **more})
    if done:
        state = _restored_state(items, section, state.frozen if state else None)
    assert state is not None, "a stage that has begun has saved a step"
    return done, state, items


def _restored_state(items: dict[str, Any], section: OptimizerSection, base: Base | None) -> TrainState:
    """The state in the items of a checkpoint; with LoRA, around the frozen weights `base`."""
    count = items["count"]
    trained, frozen = split_frozen(items["params"], section.freeze) if base is None else (items["lora"], base)
    return TrainState(trained, items["opt_state"], count["step"], frozen, Guard(*count["guard"]))


def _free(params: Any) -> None:
    for leaf in jax.tree.leaves(params):
        if isinstance(leaf, jax.Array):
            leaf.delete()


def state_items(state: TrainState, params: Any = None) -> dict[str, Any]:
    """The items of a checkpoint; the next stage reads only "params" (`params`, or the state's own)."""
    count = {"step": state.step, "guard": list(state.guard)}
    params = state.all_params if params is None else params
    items = {"params": params, "opt_state": state.opt_state, "count": count}
    return {**items, "lora": state.params} if isinstance(state.frozen, Base) else items


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
      Stopped: after a stop request, at the end of the first step whose batch was read after it on any host
        (on a single host, of the step that it came in); that step is saved.
    """
    steps = stage.steps
    assert steps is not None, "the number of steps is known before training"
    transform = make_optimizer(optimizer, steps)
    schedule = make_schedule(optimizer, steps)
    done, state, items = resume_state(run.mesh, stage, params, transform, optimizer, data_iter={})
    if done:
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
    replaced = ReplacedExamples(run.workdir, name, done)
    counts = {
        f"left_out_{use}": note["count"] for use, note in read_notes(run.workdir).items() if use != name
    }
    stage.flops_per_token = 6.0 * run.model.matmul_parameters

    def save(step: int, **options: Any) -> None:
        items = {**state_items(state), "data_iter": {"state": json.dumps(data.get_state())}}
        stage.save(step, items, **options)

    loop = StepLoop(stage, optimizer, schedule, save, progress, figure="loss", done=done, log_every=LOG_EVERY)
    if validation:
        validation.catch_up(done, state.all_params, partial(save, wait=True))
    for step in loop:
        batch, lines, stop = _next_batch(run.batching, data)
        replaced.add(step, lines)
        stage.constants = counts | ({f"left_out_{name}": len(replaced.lines)} if replaced.lines else {})
        state, metrics = step_fn(state, put_batch(run.mesh, batch))
        stage.note(metrics)
        scores = validation(step, state.all_params) if validation else {}
        stop = stop or scores is None or interrupt.stop_requested_alone()
        loop.finish(step, state.guard, scores or {}, stop=stop and step < steps)
    return state.all_params
