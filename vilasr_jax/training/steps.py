"""The compiled training steps: SFT, and the gradient and update of GRPO."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from vilasr_jax.config import RLSection
from vilasr_jax.processing import Batch
from vilasr_jax.rollout.sampling import Suppressed
from vilasr_jax.training.losses import (
    GRPO_SUMS,
    grpo_loss,
    importance_weights,
    map_head,
    sft_loss,
    sft_weights,
    token_logprob,
    token_logprobs,
)
from vilasr_jax.training.soft_drawing import SoftDrawing
from vilasr_jax.training.state import Guard, TrainState, join, state_shardings

GUARD_AFTER = 20  # updates before the running mean of the gradient norm is trusted
GUARD_MEMORY = 0.95  # decay of the running mean per update
# What the gradient calls of a GRPO update sum up, in addition to the loss's own sums.
STEP_SUMS = ("entropy", "loss", "importance", "rollout_kl", "useful_tokens", "all_tokens")


def _update(
    optimizer: optax.GradientTransformation, spike: float, state: TrainState, grads, loss
) -> tuple[TrainState, dict[str, Any]]:
    """Applies the gradient, unless it is not finite or far larger than those before it."""
    norm = optax.tree.norm(grads)
    good = jnp.isfinite(norm) & jnp.isfinite(loss)
    if spike:
        good &= (norm <= spike * state.guard.norm) | (state.step < GUARD_AFTER)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    fresh = (optax.apply_updates(state.params, updates), opt_state)
    params, opt_state = jax.tree.map(partial(jnp.where, good), fresh, (state.params, state.opt_state))
    memory = jnp.where(state.step == 0, 0.0, GUARD_MEMORY)
    guard = Guard(
        norm=jnp.where(good, memory * state.guard.norm + (1 - memory) * norm, state.guard.norm),
        skipped=state.guard.skipped + ~good,
        in_a_row=jnp.where(good, 0, state.guard.in_a_row + 1),
    )
    metrics = {"grad_norm": (norm, 1), "skipped": (1 - good.astype(jnp.float32), 1)}
    return TrainState(params, opt_state, state.step + good, state.frozen, guard), metrics


def _jit(function: Callable, mesh: Mesh | None, **options: Any) -> Callable:
    """`jax.jit` of a function whose activations are laid out on `mesh` (see `sharding.constrain`)."""
    if mesh is None:
        return jax.jit(function, **options)

    def on_mesh(*args):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args)

    return jax.jit(on_mesh, **options)


def _placed(state: TrainState, mesh: Mesh | None) -> TrainState:
    """The new state in the layout of the old one, so that buffers are reused and nothing recompiles."""
    if mesh is None:
        return state
    return jax.lax.with_sharding_constraint(state, state_shardings(state, mesh))


def _split_as_params(grads: Any, state: TrainState, mesh: Mesh | None) -> Any:
    """Gradients in the layout of their weights, reduced straight into each device's shard."""
    if mesh is None:
        return grads
    return jax.lax.with_sharding_constraint(grads, state_shardings(state, mesh).params)


def make_sft_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    *,
    mesh: Mesh | None = None,
    accumulate: int = 1,
    spike: float = 0.0,
    soft: SoftDrawing | None = None,
    loss: str = "token_mean",
):
    """Returns jitted `step(state, batch) -> (state, metrics)`; metrics are (sum, count) pairs on the device.

    Args:
      graphdef: the model's structure.
      optimizer: the Optax optimiser.
      mesh: over which the state is sharded; None for a single device.
      accumulate: number of parts in which the batch goes through the model, one after the other; the
        gradient is that of the full batch.
      spike: skip an update whose gradient norm is more than this times the running mean; 0: only
        non-finite ones.
      soft: a term added to the cross entropy (the mean over the parts); batches then carry the extras of
        `soft.mark`.
      loss: how tokens are weighted, see `sft_weights`.
    """

    def gradient(state: TrainState, batch: Batch, scale: jax.Array):
        """Gradient, loss and other figures of some of a batch's rows, as sums to be added."""

        def figures(logits, ids):
            return token_logprob(logits, ids), soft.read(logits) if soft else None

        def loss_of(params):
            logprobs, read = map_head(nnx.merge(graphdef, join(params, state.frozen)), batch, figures)
            total, more = sft_loss(logprobs, batch, loss) * scale, {}
            if soft:
                term, more = jax.tree.map(lambda x: x / accumulate, soft.loss(read, batch))
                total += term
            return total, (total, more)

        grads, sums = jax.grad(loss_of, has_aux=True)(state.params)
        return _split_as_params(grads, state, mesh), sums

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        weight = sft_weights(batch, loss).sum()  # conversations or assistant tokens in the batch
        call = partial(gradient, state, scale=1 / jnp.maximum(weight, 1))
        if accumulate == 1:
            grads, (mean, more) = call(batch)
        else:
            parts = split_batch(batch, accumulate)
            zero = jax.tree.map(
                lambda x: jnp.zeros(x.shape, x.dtype),
                jax.eval_shape(call, jax.tree.map(lambda x: x[0], parts)),
            )
            (grads, (mean, more)), _ = jax.lax.scan(
                lambda total, part: (jax.tree.map(jnp.add, total, call(part)), None), zero, parts
            )
        state, metrics = _update(optimizer, spike, state, grads, mean)
        metrics |= {name: (value, 1) for name, value in more.items()}
        metrics["loss"] = mean * weight, weight
        metrics["useful_tokens"] = jnp.count_nonzero(batch.segment_ids), batch.segment_ids.size
        return _placed(state, mesh), metrics

    return _jit(step, mesh, donate_argnums=0)


def split_batch(batch: Batch, parts: int) -> Batch:
    """The rows of a batch in `parts` equal parts (a new leading axis); no row moves between devices."""

    def cut(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 1, 0)

    cuts = jax.tree.map(cut, batch._replace(positions=batch.positions.swapaxes(0, 1)))
    return cuts._replace(positions=cuts.positions.swapaxes(1, 2))


def needs_old_logprobs(section: RLSection) -> bool:
    """Whether log-probabilities are computed by the trained policy before a step's first update."""
    return section.old_logprobs == "trained" or bool(section.importance_cap)


def make_grpo_steps(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    section: RLSection,
    suppressed: Suppressed,
    mesh: Mesh | None = None,
):
    """Returns jitted `zero(state) -> total`, `grad(state, total, batch, scale) -> total` and
    `apply(state, total) -> (state, sums)`.

    A batch carries `extras`: "logprobs" [b, t] of the sampling policy and "advantages" [b, t] (the
    trajectory's own at every token); where the section asks for it, "old_logprobs" [b, t] of the trained
    policy before the step's first update, and "ref_logprobs" [b, t] of the reference policy. `total` is
    (gradient sum, metric sums); `scale` is 1 / the update's trajectories (its sampled tokens for
    "token_mean"), so that several calls add up to one mean.
    """

    def zero(state: TrainState):
        sums = {name: jnp.zeros(()) for name in (*GRPO_SUMS, *STEP_SUMS)}
        return _split_as_params(jax.tree.map(jnp.zeros_like, state.params), state, mesh), sums

    def grad(state: TrainState, total, batch: Batch, scale: jax.Array):
        mask, rollout = jnp.asarray(batch.loss_mask, jnp.float32), batch.extras["logprobs"]

        def loss_of(params):
            logprobs, entropy = token_logprobs(
                nnx.merge(graphdef, join(params, state.frozen)),
                batch,
                suppressed=suppressed,
                temperature=section.sampling.temperature,
            )
            old, weights, trained = rollout, None, logprobs
            if needs_old_logprobs(section):
                old = trained = batch.extras["old_logprobs"]
            if section.importance_cap:
                weights = importance_weights(old, rollout, batch.loss_mask, section.importance_cap)
            loss, sums = grpo_loss(
                logprobs,
                old,
                batch.extras["advantages"],
                batch.loss_mask,
                clip_low=section.clip_low,
                clip_high=section.clip_high,
                dual_clip=section.dual_clip,
                kind=section.loss,
                segment_ids=batch.segment_ids,
                weights=weights,
                ref_logprobs=batch.extras.get("ref_logprobs"),
                kl_weight=section.kl_weight,
                entropy=entropy,
                entropy_weight=section.entropy_weight,
            )
            loss = (loss * scale).sum()
            log_ratio = (trained - rollout) * mask
            sums |= {
                "entropy": (entropy * mask).sum(),
                "loss": loss,
                "importance": (mask if weights is None else weights * mask).sum(),
                "rollout_kl": ((jnp.exp(log_ratio) - 1 - log_ratio) * mask).sum(),
                "useful_tokens": jnp.count_nonzero(batch.segment_ids).astype(jnp.float32),
                "all_tokens": jnp.float32(batch.segment_ids.size),
            }
            return loss, sums

        grads, sums = jax.grad(loss_of, has_aux=True)(state.params)
        return jax.tree.map(jnp.add, total, (_split_as_params(grads, state, mesh), sums))

    def apply(state: TrainState, total):
        grads, sums = total
        state, metrics = _update(optimizer, section.optimizer.spike, state, grads, sums["loss"])
        return _placed(state, mesh), {**sums, **metrics}

    return _jit(zero, mesh), _jit(grad, mesh, donate_argnums=1), _jit(apply, mesh, donate_argnums=0)


def make_logprobs(
    graphdef: nnx.GraphDef, suppressed: Suppressed, temperature: float, mesh: Mesh | None = None
):
    """Returns jitted `logprobs(params, batch) -> [b, t]`, under the rollout's own distribution."""

    def logprobs(params, batch: Batch) -> jax.Array:
        model = nnx.merge(graphdef, params)
        return token_logprobs(model, batch, suppressed=suppressed, temperature=temperature)[0]

    return _jit(logprobs, mesh)
