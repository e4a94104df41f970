"""The state that a stage trains, new or from its newest checkpoint, and the items of its checkpoints."""

from __future__ import annotations

from typing import Any

import jax
import optax
from jax.sharding import Mesh

from vilasr_jax.config import OptimizerSection
from vilasr_jax.models.sharding import param_shardings
from vilasr_jax.training.lora import Base, has_int8
from vilasr_jax.training.stage import Stage
from vilasr_jax.training.state import Guard, TrainState, abstract_state, init_state, split_frozen


def resume_state(
    mesh: Mesh,
    stage: Stage,
    params: Any,
    transform: optax.GradientTransformation,
    section: OptimizerSection,
    **extra_items: Any,
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
      extra_items: further items of the checkpoint, with their values before the first step.
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
    steps_done, items = stage.begin({**state_items(abstract, shapes), **extra_items})
    if steps_done:
        state = _restored_state(items, section, state.frozen if state else None)
    assert state is not None, "a stage that has begun has saved a step"
    return steps_done, state, items


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
    """The items of a checkpoint; the next stage reads only "params" (`params`, or the state's own).

    With an int8 base there are no "params": a reader adds "lora" to the weights that the stage began with.
    """
    count = {"step": state.step, "guard": list(state.guard)}
    items = {"opt_state": state.opt_state, "count": count}
    if isinstance(state.frozen, Base):
        items["lora"] = state.params
        if has_int8(state.frozen):
            return items
    return {**items, "params": state.all_params if params is None else params}
