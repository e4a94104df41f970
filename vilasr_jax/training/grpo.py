"""Stage 3, reinforcement learning: GRPO over whole drawing conversations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from rich.progress import Progress

from vilasr_jax.evaluation import score_all
from vilasr_jax.parallel import put_batch
from vilasr_jax.processing import collate
from vilasr_jax.rollout import Trajectory
from vilasr_jax.training.advantages import group_advantages
from vilasr_jax.training.cold_start import validate
from vilasr_jax.training.context import Context
from vilasr_jax.training.optimizers import make_optimizer
from vilasr_jax.training.reflect import trajectory_example
from vilasr_jax.training.stage import Stage
from vilasr_jax.training.steps import TrainState, init_state, make_grpo_steps


def rl_stage(context: Context) -> Stage:
    """The stage's folder."""
    section = context.job.rl
    return Stage(context.workdir / "rl", section.steps, section.save_every, "rl: GRPO")


def rollout_metrics(
    trajectories: Sequence[Trajectory], advantages: np.ndarray, group: int
) -> dict[str, float]:
    """What the sampled conversations were like, means over them."""

    def mean(value) -> float:
        return float(np.mean([value(t) for t in trajectories]))

    flat = advantages.reshape(-1, group)
    return {
        "reward": mean(lambda t: t.reward["total"]),
        "accuracy": mean(lambda t: t.reward["accuracy"]),
        "format": mean(lambda t: t.reward["format"]),
        "drew": mean(lambda t: t.drawings > 0),
        "drawings": mean(lambda t: t.drawings),
        "corrected": mean(lambda t: t.corrected > 0),
        "errors": mean(lambda t: t.errors),
        "response_tokens": mean(lambda t: t.loss_mask.sum()),
        "equal_groups": float(np.mean(np.all(flat == 0, axis=1))),
    }


def run_rl(context: Context, params: Any, progress: Progress) -> Any:
    """Trains from `params`, or goes on from what is saved; returns the parameters.

    A step samples `prompts` x `group` conversations, and makes `updates` optimiser updates, each on an equal
    part of them in random order. Everything a step does follows from the parameters and its number.
    """
    section = context.job.rl
    stage = rl_stage(context)
    if stage.done:
        return stage.load_params(context.abstract_params)
    optimizer = make_optimizer(section.optimizer, section.steps * section.updates)
    fresh = init_state(params, optimizer)
    done, items = stage.begin(
        {"params": fresh.params, "opt_state": fresh.opt_state, "count": {"step": fresh.step}}
    )
    state = TrainState(items["params"], items["opt_state"], items["count"]["step"])
    calls = make_grpo_steps(context.graphdef, optimizer, section, context.suppressed)
    engine = context.engine(section.sampling)
    bar = progress.add_task(stage.title, total=section.steps, completed=done, note="")
    for step in range(done + 1, section.steps + 1):
        rows = context.rows("rl", section.prompts, first=context.RL_SEEDS + (step - 1) * section.prompts)
        requests = context.requests(rows, samples=section.group)
        trajectories = engine.generate(state.params, requests, context.key("rl", step))
        score_all(trajectories, context.reward)
        rewards = np.array([t.reward["total"] for t in trajectories], np.float32)
        advantages = group_advantages(rewards, section.group, section.advantage)
        order = np.random.default_rng([context.job.seed, step]).permutation(len(trajectories))
        for part in np.array_split(order, section.updates):
            state = _update(context, state, calls, trajectories, advantages, part, stage)
        extra = rollout_metrics(trajectories, advantages, section.group)
        if section.validate_every and (step % section.validate_every == 0 or step == section.steps):
            extra |= validate(context, state.params)
        stage.log(step, **extra)
        if stage.save_due(step):
            stage.save(
                step, {"params": state.params, "opt_state": state.opt_state, "count": {"step": state.step}}
            )
        progress.update(bar, completed=step, note=f"reward {extra['reward']:.3f}")
    stage.close()
    return state.params


def _update(
    context: Context, state: TrainState, calls, trajectories, advantages, part, stage: Stage
) -> TrainState:
    """One optimiser update on the conversations numbered `part`.

    A conversation whose advantage is exactly 0 has no gradient: it counts in the mean but is not computed.
    """
    section = context.job.rl
    telling = sorted((i for i in part if advantages[i] != 0), key=lambda i: len(trajectories[i].tokens))
    if not telling:
        return state
    if section.loss == "token_mean":
        share = np.float32(1 / sum(trajectories[i].loss_mask.sum() for i in part))
    else:
        share = np.float32(1 / len(part))
    zero, grad, apply = calls
    total = zero(state.params)
    for at in range(0, len(telling), section.micro_batch):
        examples = [
            trajectory_example(
                context,
                trajectories[i],
                logprobs=trajectories[i].logprobs,
                advantages=np.full(len(trajectories[i].tokens), advantages[i], np.float32),
            )
            for i in telling[at : at + section.micro_batch]
        ]
        batch = collate(examples, buckets=context.buckets, rows=section.micro_batch)
        total = grad(state.params, total, put_batch(context.mesh, batch), share)
    state, sums = apply(state, total)
    sums = jax.device_get(sums)
    tokens = max(float(sums["tokens"]), 1.0)
    names = ("clipped_high", "clipped_low", "dual_clipped", "kl", "entropy")
    per_token = {name: sums[name] / tokens for name in names}
    stage.note({"loss": sums["loss"], "grad_norm": sums["grad_norm"], **per_token})
    return state
