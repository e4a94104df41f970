"""The compiled training steps: SFT, and the gradient and update of GRPO."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from vilasr_jax.config import RLSection
from vilasr_jax.processing import Batch
from vilasr_jax.training.losses import (
    GRPO_SUMS,
    grpo_loss,
    map_head,
    sft_loss,
    token_logprob,
    token_logprobs,
)
from vilasr_jax.training.soft_drawing import SoftDrawing


class TrainState(NamedTuple):
    """What an optimiser changes: parameters, its own state, and the number of updates done."""

    params: Any
    opt_state: Any
    step: jax.Array


def init_state(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """A fresh optimiser around `params` (copied: the steps donate their state).

    All of it lies on the parameters' mesh, counters too: else a step would compile anew for its own output.
    """
    params = jax.tree.map(jnp.copy, params)
    state = TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))
    meshes = [x.sharding.mesh for x in jax.tree.leaves(params) if isinstance(x.sharding, NamedSharding)]
    if not meshes:
        return state
    whole = NamedSharding(meshes[0], PartitionSpec())

    def place(leaf: jax.Array) -> jax.Array:
        return leaf if isinstance(leaf.sharding, NamedSharding) else jax.device_put(leaf, whole)

    return jax.tree.map(place, state)


def _apply(optimizer, state: TrainState, grads) -> tuple[TrainState, jax.Array]:
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, opt_state, state.step + 1), optax.global_norm(grads)


def make_sft_step(
    graphdef: nnx.GraphDef, optimizer: optax.GradientTransformation, soft: SoftDrawing | None = None
):
    """Returns jitted `step(state, batch) -> (state, metrics)`; metrics are scalars on the device.

    With `soft`, its term is added to the cross entropy; batches then carry the extras of `soft.mark`.
    """

    @partial(jax.jit, donate_argnums=0)
    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        def loss_of(params):
            def figures(logits, ids):
                return token_logprob(logits, ids), soft.read(logits) if soft else None

            logprobs, read = map_head(nnx.merge(graphdef, params), batch, figures)
            loss, metrics = sft_loss(logprobs, batch)
            if soft:
                term, more = soft.loss(read, batch)
                loss, metrics = loss + term, {**metrics, **more}
            return loss, metrics

        (loss, metrics), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        state, norm = _apply(optimizer, state, grads)
        return state, {"loss": loss, "grad_norm": norm, **metrics}

    return step


def make_grpo_steps(
    graphdef: nnx.GraphDef, optimizer: optax.GradientTransformation, section: RLSection, suppressed: jax.Array
):
    """Returns jitted `zero(params) -> total`, `grad(params, total, batch, share) -> total` and
    `apply(state, total) -> (state, metrics)`.

    A batch carries `extras`: "logprobs" [b, t] of the sampling policy and "advantages" [b, t] (the
    trajectory's own at every token, 0 for padding rows). `total` is (gradient sum, metric sums); `share` is
    1 / the update's trajectories (its sampled tokens for "token_mean"), so that several calls add up to one
    mean.
    """

    @jax.jit
    def zero(params):
        sums = {name: jnp.zeros(()) for name in (*GRPO_SUMS, "entropy", "loss")}
        return jax.tree.map(jnp.zeros_like, params), sums

    @partial(jax.jit, donate_argnums=1)
    def grad(params, total, batch: Batch, share: jax.Array):
        def loss_of(params):
            logprobs, entropy = token_logprobs(
                nnx.merge(graphdef, params),
                batch,
                suppressed=suppressed,
                temperature=section.sampling.temperature,
            )
            loss, sums = grpo_loss(
                logprobs,
                batch.extras["logprobs"],
                batch.extras["advantages"],
                batch.loss_mask,
                clip_low=section.clip_low,
                clip_high=section.clip_high,
                dual_clip=section.dual_clip,
                kind=section.loss,
            )
            sums = {**sums, "entropy": (entropy * batch.loss_mask).sum(), "loss": (loss * share).sum()}
            return (loss * share).sum(), sums

        grads, sums = jax.grad(loss_of, has_aux=True)(params)
        return jax.tree.map(jnp.add, total, (grads, sums))

    @partial(jax.jit, donate_argnums=0)
    def apply(state: TrainState, total):
        grads, sums = total
        state, norm = _apply(optimizer, state, grads)
        return state, {**sums, "grad_norm": norm}

    return zero, grad, apply


def make_logprobs(graphdef: nnx.GraphDef, suppressed: jax.Array, temperature: float):
    """Returns jitted `logprobs(params, batch) -> [b, t]`, under the rollout's own distribution."""

    @jax.jit
    def logprobs(params, batch: Batch) -> jax.Array:
        model = nnx.merge(graphdef, params)
        return token_logprobs(model, batch, suppressed=suppressed, temperature=temperature)[0]

    return logprobs
