"""Stage 3, reinforcement learning: GRPO over whole drawing conversations."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import Progress

from vilasr_jax.errors import Stopped
from vilasr_jax.evaluation import result_line, summarize, write_results
from vilasr_jax.parallel import gather, is_writer, put_batch
from vilasr_jax.processing import Batch, Encoded, PackedRow, collate, collate_packed, empty_batch, pack
from vilasr_jax.training.cold_start import validate
from vilasr_jax.training.context import Context
from vilasr_jax.training.duration import plan_steps, stage_steps
from vilasr_jax.training.groups import Samples, collect
from vilasr_jax.training.optimizers import make_optimizer, make_schedule
from vilasr_jax.training.recovery import read_pool
from vilasr_jax.training.reflect import trajectory_example
from vilasr_jax.training.sft import check_guard, resume_state, state_items
from vilasr_jax.training.stage import SAMPLING, UPDATING, Stage
from vilasr_jax.training.state import TrainState
from vilasr_jax.training.steps import make_grpo_steps, make_logprobs, recomputes

SAVED_SAMPLES = 8  # conversations
EXTRAS = {"logprobs": np.dtype(np.float32), "advantages": np.dtype(np.float32)}


def rl_stage(context: Context) -> Stage:
    """The stage's folder."""
    section, folder = context.job.rl, context.workdir / "rl"
    return Stage(folder, stage_steps(folder, section), section.save_every, "rl: GRPO", context.profile)


def run_rl(context: Context, params: Any, progress: Progress) -> Any:
    """Trains from `params`, or goes on from what is saved; returns the parameters.

    A step samples `prompts` x `group` conversations, and makes `updates` optimiser updates, each on an equal
    part of them in random order. Everything a step does follows from the parameters and its number. `params`
    are also the reference policy, where one is asked for; the stage takes them over (see `resume_state`).

    Raises:
      TrainingError: too many updates in a row had to be skipped.
      Stopped: SIGTERM came; the last whole step is saved.
    """
    section = context.job.rl
    stage = rl_stage(context)
    if stage.done:
        return stage.load_params(context.abstract_params)
    questions, what = context.question_source("rl")
    folder, rate = stage.directory, section.prompts
    stage.steps = plan_steps(folder, section, stage.title, what, questions, rate, stage.begun)
    updates = stage.steps * section.updates
    optimizer = make_optimizer(section.optimizer, updates)
    schedule = make_schedule(section.optimizer, updates)
    more = {"recovery": {"pool": []}} if section.recovery else {}
    reference = jax.tree.map(jnp.copy, params) if section.kl_weight else None
    done, state, items = resume_state(context, stage, params, optimizer, section.optimizer, **more)
    pool = read_pool(items.get("recovery", {"pool": []})["pool"])

    def save(step: int, **options: Any) -> None:
        kept = {"recovery": {"pool": [prefix.to_json() for prefix in pool]}} if section.recovery else {}
        stage.save(step, {**state_items(state), **kept}, **options)

    calls = make_grpo_steps(context.graphdef, optimizer, section, context.suppressed, context.mesh)
    logprobs = make_logprobs(context.graphdef, context.suppressed, section.sampling.temperature, context.mesh)
    update = Update(context, calls, logprobs, reference, stage)
    forwards = 2.0 * (recomputes(section) + bool(section.kl_weight))  # beside the gradient's own
    stage.flops_per_token = (6.0 + forwards) * context.matmul_parameters
    bar = progress.add_task(stage.title, total=stage.steps, completed=done, note="")
    for step in range(done + 1, stage.steps + 1):
        stage.trace(step, done + 1)
        began = time.monotonic()
        try:
            samples = collect(context, state.all_params, step, pool)
        except Stopped:
            if step - 1 > done and not stage.save_due(step - 1):
                save(step - 1, wait=True)
            stage.close()
            raise Stopped(f"{stage.title}: stopped after step {step - 1} of {stage.steps}") from None
        sampled = time.monotonic()
        order = np.random.default_rng([context.job.seed, step]).permutation(len(samples.rewards))
        state = jax.block_until_ready(update(state, samples, np.array_split(order, section.updates)))
        seconds = {SAMPLING: (sampled - began, 1), UPDATING: (time.monotonic() - sampled, 1)}
        stage.note({**samples.metrics, **seconds})
        pool = samples.failed
        if section.sample_every and step % section.sample_every == 0:
            _save_samples(context, stage, samples, step)
        extra = {}
        if section.validate_every and (step % section.validate_every == 0 or step == stage.steps):
            extra = validate(context, state.all_params)
        rate = float(schedule(step * section.updates - 1))
        values = stage.log(step, learning_rate=rate, **extra)
        check_guard(state, section.optimizer)
        if stage.save_due(step):
            save(step, score=extra.get("val_accuracy"))
        progress.update(bar, completed=step, note=f"reward {values['reward']:.3f}")
    stage.close()
    return state.all_params


def _save_samples(context: Context, stage: Stage, samples: Samples, step: int) -> None:
    """Some conversations of a step as `samples/step_<n>/results.jsonl` and pictures, for the report."""
    if is_writer():
        some = [samples.trajectories[i] for i in sorted(samples.trajectories)][:SAVED_SAMPLES]
        folder = stage.directory / "samples" / f"step_{step}"
        told = dict(stage="rl", model_id=f"{context.job.name}/rl", pictures=folder / "images")
        lines = [result_line(trajectory, context.tokenizer, **told) for trajectory in some]
        write_results(folder, lines, summarize(lines))


class Update:
    """The optimiser updates of a step."""

    def __init__(
        self, context: Context, calls: tuple[Callable, ...], logprobs: Callable, reference: Any, stage: Stage
    ):
        self.context, self.section, self.stage = context, context.job.rl, stage
        self.zero, self.grad, self.apply = calls
        self.logprobs, self.reference = logprobs, reference

    def __call__(self, state: TrainState, samples: Samples, parts: Sequence[np.ndarray]) -> TrainState:
        """One update for each of `parts`, the numbers of its conversations over all hosts."""
        old: list[list[jax.Array]] = [[] for _ in parts]
        if recomputes(self.section):
            whole = state.all_params
            for kept, part in zip(old, parts, strict=True):
                kept += [self.logprobs(whole, batch) for batch in self._batches(samples, part)]
            del whole  # the updates donate it
        for number, (part, logprobs) in enumerate(zip(parts, old, strict=True)):
            state = self._one(state, samples, part, logprobs, first=number == 0)
        return state

    def _one(
        self, state: TrainState, samples: Samples, part, old: list[jax.Array], first: bool
    ) -> TrainState:
        counted = part[samples.counted[part]]
        if not len(self._telling(samples, part)):
            return state
        by_tokens = self.section.loss == "token_mean"
        share = np.float32(1 / (samples.tokens[counted].sum() if by_tokens else len(counted)))
        total = self.zero(state)
        for number, batch in enumerate(self._batches(samples, part)):
            if old:
                batch.extras["old_logprobs"] = old[number]
            if self.reference is not None:
                batch.extras["ref_logprobs"] = self.logprobs(self.reference, batch)
            total = self.grad(state, total, batch, share)
        state, sums = self.apply(state, total)
        tokens = sums.pop("tokens")
        pairs = {name: sums.pop(name) for name in ("grad_norm", "skipped")}
        pairs["loss"] = (sums.pop("loss"), 1)
        pairs["useful_tokens"] = (sums.pop("useful_tokens"), sums.pop("all_tokens"))
        if not first and not recomputes(self.section):
            del sums["rollout_kl"]  # the policy has moved on: it says nothing about the engine any more
        self.stage.note({**pairs, **{name: (value, tokens) for name, value in sums.items()}})
        return state

    def _telling(self, samples: Samples, part: np.ndarray) -> np.ndarray:
        """Those of `part` that have a gradient; one whose advantage is exactly 0 has none from the reward."""
        telling = samples.counted[part]
        if not (self.section.kl_weight or self.section.entropy_weight):
            telling = telling & (samples.advantages[part] != 0)
        return part[telling]

    def _batches(self, samples: Samples, part: np.ndarray) -> Iterator[Batch]:
        """The calls of an update, as many on every host: its own conversations, the rest padding."""
        context, (_, hosts) = self.context, self.context.host
        rows = self.section.micro_batch // hosts
        mine = [i for i in self._telling(samples, part) if i in samples.trajectories]
        mine.sort(key=lambda i: len(samples.trajectories[i].tokens))
        examples = [self._example(samples, i) for i in mine]
        filled = examples if context.packing is None else pack(examples, context.packing)
        calls = max(gather(-(-len(filled) // rows)))
        for number in range(calls):
            yield put_batch(context.mesh, self._collate(filled[number * rows :][:rows], rows))

    def _collate(self, some: Sequence[Encoded | PackedRow], rows: int) -> Batch:
        context = self.context
        if context.packing is not None:
            return collate_packed(some, context.packing, rows=rows, extras=EXTRAS)
        if some:
            return collate(some, buckets=context.buckets, rows=rows)
        largest = (context.buckets.tokens[-1], context.buckets.images[-1], context.buckets.patches[-1])
        return empty_batch(rows, *largest, EXTRAS, context.buckets.spec)

    def _example(self, samples: Samples, i: int) -> Encoded:
        trajectory = samples.trajectories[i]
        advantages = np.full(len(trajectory.tokens), samples.advantages[i], np.float32)
        return trajectory_example(
            self.context, trajectory, logprobs=trajectory.logprobs, advantages=advantages
        )
