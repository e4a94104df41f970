"""State of a training step, the split into trained and frozen weights, and the shardings of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vilasr_jax.config import OptimizerSection
from vilasr_jax.errors import ConfigError
from vilasr_jax.models.params import GROUPS, group_of
from vilasr_jax.models.sharding import param_shardings
from vilasr_jax.training import lora


class Guard(NamedTuple):
    """What the guard against bad updates remembers."""

    norm: jax.Array  # [] float32, running mean of the gradient norm
    skipped: jax.Array  # [] int32, updates skipped so far
    in_a_row: jax.Array  # [] int32, updates skipped since the last good one


class TrainState(NamedTuple):
    """Input and output of a training step. `params` are those that are trained, `frozen` all others.

    Under LoRA `params` are the factors and `frozen` is a `lora.Base`, whose matrices may be int8.
    """

    params: Any
    opt_state: Any
    step: jax.Array  # [] int32, updates so far
    frozen: Any
    guard: Guard

    @property
    def all_params(self) -> Any:
        """All parameters of the model, as one tree."""
        return join(self.params, self.frozen)


def join(params: Any, frozen: Any) -> Any:
    """All parameters of the model, from the two parts of a state."""
    return lora.merged(frozen, params) if isinstance(frozen, lora.Base) else nnx.merge_state(params, frozen)


def split_frozen(params: Any, freeze: Sequence[str]) -> tuple[Any, Any]:
    """Splits the model's parameters into (trained, frozen) by group.

    Raises:
      ConfigError: a group that does not exist, or nothing left to train.
    """
    check_groups(freeze)
    trained, frozen = nnx.split_state(params, lambda path, _: group_of(path) not in freeze, ...)
    return trained, frozen


def check_groups(freeze: Sequence[str]) -> None:
    """Raises ConfigError for a group that does not exist, or when nothing is left to train."""
    unknown = [name for name in freeze if name not in GROUPS]
    if unknown:
        raise ConfigError(f"optimizer.freeze: no group {unknown[0]!r}; there are: {', '.join(GROUPS)}")
    if set(freeze) >= set(GROUPS):
        raise ConfigError("optimizer.freeze holds every group: nothing is left to train")


def new_state(params: Any, optimizer: optax.GradientTransformation, section: OptimizerSection) -> TrainState:
    """A fresh optimiser around `params`; works under `jax.eval_shape`."""
    if section.lora_base:
        params = lora.int8_base(params)
    if section.lora_rank:
        scale = jnp.asarray(section.lora_alpha / section.lora_rank, jnp.float32)
        trained, frozen = lora.new_factors(params, section.lora_rank), lora.Base(params, scale)
    else:
        trained, frozen = split_frozen(params, section.freeze)
    zero = jnp.zeros((), jnp.int32)
    guard = Guard(jnp.zeros((), jnp.float32), zero, zero)
    return TrainState(trained, optimizer.init(trained), zero, frozen, guard)


def state_shardings(state: TrainState, mesh: Mesh) -> TrainState:
    """The `NamedSharding` of every leaf of a state (or its `jax.eval_shape`).

    Optimiser state of a weight is sharded as the weight is; counters are replicated.
    """
    replicated = NamedSharding(mesh, PartitionSpec())
    counter: Any = replicated  # a sharding where the state has an array
    if isinstance(state.frozen, lora.Base):
        base = state.frozen.params
        params = lora.factor_shardings(base, mesh)
        frozen: Any = lora.Base(param_shardings(base, mesh), counter)
    else:
        params, frozen = param_shardings(state.params, mesh), param_shardings(state.frozen, mesh)
    places = {
        tuple(path): (leaf.shape, place)
        for (path, leaf), place in zip(
            jax.tree_util.tree_leaves_with_path(state.params), jax.tree.leaves(params), strict=True
        )
    }

    def of(path: tuple, leaf: Any) -> NamedSharding:
        for start in range(len(path)):
            shape, place = places.get(path[start:], (None, replicated))
            if shape == leaf.shape:
                return place
        return replicated

    return TrainState(
        params=params,
        opt_state=jax.tree_util.tree_map_with_path(of, state.opt_state),
        step=counter,
        frozen=frozen,
        guard=Guard(counter, counter, counter),
    )


def init_state(
    params: Any, optimizer: optax.GradientTransformation, mesh: Mesh, section: OptimizerSection
) -> TrainState:
    """`new_state` laid out on `mesh`.

    `params` that already have the right sharding are not copied; the first step donates them.
    """
    places = jax.tree.map(lambda x: x.sharding, abstract_state(params, optimizer, mesh, section))
    if section.lora_base:
        params = lora.int8_base(params)
    params = jax.device_put(params, param_shardings(params, mesh))

    def without_params(state: TrainState) -> TrainState:
        if isinstance(state.frozen, lora.Base):
            return state._replace(frozen=state.frozen._replace(params=None))
        return state._replace(params=None, frozen=None)

    fresh = jax.jit(
        lambda p: without_params(new_state(p, optimizer, section)), out_shardings=without_params(places)
    )(params)
    if isinstance(fresh.frozen, lora.Base):
        return fresh._replace(frozen=fresh.frozen._replace(params=params))
    trained, frozen = split_frozen(params, section.freeze)
    return fresh._replace(params=trained, frozen=frozen)


def abstract_state(
    params: Any, optimizer: optax.GradientTransformation, mesh: Mesh, section: OptimizerSection
) -> TrainState:
    """Shapes, dtypes and shardings of what `init_state` makes."""
    state = jax.eval_shape(lambda p: new_state(p, optimizer, section), params)
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        state,
        state_shardings(state, mesh),
    )
