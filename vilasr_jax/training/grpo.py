"""Stage 3, reinforcement learning: GRPO over multi-turn drawing conversations."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import Progress

from vilasr_jax.config import RLSection
from vilasr_jax.errors import Stopped
from vilasr_jax.evaluation import result_line, summarize, write_results
from vilasr_jax.model_bundle import ModelBundle
from vilasr_jax.parallel import is_writer, put_batch
from vilasr_jax.processing import Batch, Encoded
from vilasr_jax.training.batching import Batching
from vilasr_jax.training.duration import plan_steps
from vilasr_jax.training.failed_prefixes import read_pool
from vilasr_jax.training.flops import flops_per_token
from vilasr_jax.training.groups import Samples, collect
from vilasr_jax.training.optimizers import make_optimizer, make_schedule
from vilasr_jax.training.resume import resume_state, state_items
from vilasr_jax.training.run import Run
from vilasr_jax.training.stage import SAMPLING, UPDATING, Stage
from vilasr_jax.training.state import TrainState
from vilasr_jax.training.step_loop import StepLoop
from vilasr_jax.training.steps import make_grpo_steps, make_logprobs, needs_old_logprobs
from vilasr_jax.training.trajectory_dataset import trajectory_example
from vilasr_jax.training.validation import Validation, validate

SAVED_SAMPLES = 8  # conversations per saved step
EXTRAS = {"logprobs": np.dtype(np.float32), "advantages": np.dtype(np.float32)}


def run_rl(run: Run, params: Any, progress: Progress) -> Any:
    """Trains with GRPO, resuming from the last checkpoint; returns the parameters.

    A step samples `prompts` x `group` conversations, and makes `updates` optimiser updates, each on an equal
    part of them in random order. A step depends only on the parameters and its number.

    Args:
      run: the job and its parts.
      params: to start from, and the reference policy where `kl_weight` is set; the stage consumes them (see
        `resume_state`).
      progress: where the bar is shown.

    Raises:
      TrainingError: too many updates in a row had to be skipped.
      Stopped: after a stop request; the last complete step is saved.
    """
    section, model = run.job.rl, run.model
    stage = run.stages["rl"]
    if stage.done:
        return stage.load_params(model.abstract_params)

    # ------------------------------------------------ questions, and how many steps they need
    questions, what = run.questions.source("rl")
    stage.steps = plan_steps(
        stage,
        section,
        what=what,
        examples=questions,
        rate=section.prompts,
        data=run.tasks.imported.digests("questions") if questions else None,
    )

    # ------------------------------------------------ optimiser, state, compiled steps
    updates = stage.steps * section.updates
    optimizer = make_optimizer(section.optimizer, updates)
    schedule = make_schedule(section.optimizer, updates)
    extra_items: dict[str, Any] = {"recovery": {"pool": []}} if section.recovery else {}
    reference = jax.tree.map(jnp.copy, params) if section.kl_weight else None
    steps_done, state, items = resume_state(
        run.mesh, stage, params, optimizer, section.optimizer, **extra_items
    )
    pool = read_pool(items.get("recovery", {"pool": []})["pool"])

    def save(step: int, **options: Any) -> None:  # reads `state` and `pool`, which each step rebinds
        extra = {"recovery": {"pool": [prefix.to_json() for prefix in pool]}} if section.recovery else {}
        stage.save(step, {**state_items(state), **extra}, **options)

    steps = make_grpo_steps(model.graphdef, optimizer, section, model.suppressed, run.mesh)
    logprobs = make_logprobs(model.graphdef, model.suppressed, section.sampling.temperature, run.mesh)
    update = Update(section, model, run.batching, steps, logprobs, reference, stage)
    # forward passes in addition to that of the gradient
    forwards = needs_old_logprobs(section) + bool(section.kl_weight)
    stage.flops_per_token = flops_per_token(model.matmul_parameters, section.optimizer, forwards)

    validation = Validation(stage, section.validate_every, partial(validate, run), last=True)

    # ------------------------------------------------ train
    loop = StepLoop(
        stage,
        section.optimizer,
        schedule,
        save,
        progress,
        bar_metric="reward",
        steps_done=steps_done,
        updates=section.updates,
    )
    with loop:
        validation.catch_up(steps_done, state.all_params, partial(save, wait=True))
        for step in loop:
            began = time.monotonic()
            try:
                samples = collect(run, state.all_params, step, pool)
            except Stopped:
                loop.abandon(step)
            sampled = time.monotonic()
            order = np.random.default_rng([run.job.seed, step]).permutation(len(samples.rewards))
            state = jax.block_until_ready(update(state, samples, np.array_split(order, section.updates)))
            seconds = {SAMPLING: (sampled - began, 1), UPDATING: (time.monotonic() - sampled, 1)}
            stage.note({**samples.metrics, **seconds})
            pool = samples.failed
            if section.sample_every and step % section.sample_every == 0:
                _save_samples(run, stage, samples, step)
            scores = validation(step, state.all_params)
            loop.finish(step, state.guard, scores or {}, stop=scores is None)
    return state.all_params


def _save_samples(run: Run, stage: Stage, samples: Samples, step: int) -> None:
    """Saves some conversations of a step as `samples/step_<n>/results.jsonl` and images, for the report."""
    if is_writer():
        some = [samples.trajectories[i] for i in sorted(samples.trajectories)][:SAVED_SAMPLES]
        folder = stage.directory / "samples" / f"step_{step}"
        lines = [
            result_line(
                trajectory,
                run.model.tokenizer,
                stage="rl",
                model_id=f"{run.job.name}/rl",
                image_folder=folder / "images",
            )
            for trajectory in some
        ]
        write_results(folder, lines, summarize(lines))


class Update:
    """The optimiser updates of a step.

    Args:
      section: the settings of RL.
      model: whose conversations are trained on.
      batching: the shapes of their batches.
      steps: the compiled functions of `make_grpo_steps`.
      logprobs: the compiled function of `make_logprobs`.
      reference: parameters of the reference policy, or None.
      stage: where metrics are noted.
    """

    def __init__(
        self,
        section: RLSection,
        model: ModelBundle,
        batching: Batching,
        steps: tuple[Callable, ...],
        logprobs: Callable,
        reference: Any,
        stage: Stage,
    ):
        self.section, self.model, self.batching, self.stage = section, model, batching, stage
        self.zero, self.grad, self.apply = steps
        self.logprobs, self.reference = logprobs, reference

    def __call__(self, state: TrainState, samples: Samples, parts: Sequence[np.ndarray]) -> TrainState:
        """Makes one update for each of `parts`, the numbers of its conversations over all hosts."""
        old: list[list[jax.Array]] = [[] for _ in parts]
        if needs_old_logprobs(self.section):
            params = state.all_params
            for found, part in zip(old, parts, strict=True):
                found += [self.logprobs(params, batch) for batch in self._batches(samples, part)]
            del params  # under LoRA these are merged copies of the weights: freed before the updates
        for number, (part, logprobs) in enumerate(zip(parts, old, strict=True)):
            state = self._one(state, samples, part, logprobs, first=number == 0)
        return state

    def _one(
        self, state: TrainState, samples: Samples, part: np.ndarray, old: list[jax.Array], first: bool
    ) -> TrainState:
        if not len(self._with_gradient(samples, part)):
            return state
        counted = part[samples.counted[part]]
        by_tokens = self.section.loss == "token_mean"
        scale = np.float32(1 / (samples.tokens[counted].sum() if by_tokens else len(counted)))
        total = self.zero(state)
        for number, batch in enumerate(self._batches(samples, part)):
            if old:
                batch.extras["old_logprobs"] = old[number]
            if self.reference is not None:
                batch.extras["ref_logprobs"] = self.logprobs(self.reference, batch)
            total = self.grad(state, total, batch, scale)
        state, sums = self.apply(state, total)
        tokens = sums.pop("tokens")
        pairs = {name: sums.pop(name) for name in ("grad_norm", "skipped")}
        pairs["loss"] = (sums.pop("loss"), 1)
        pairs["useful_tokens"] = (sums.pop("useful_tokens"), sums.pop("all_tokens"))
        if not first and not needs_old_logprobs(self.section):
            del sums["rollout_kl"]  # the policy has changed: it no longer compares trainer and engine
        self.stage.note({**pairs, **{name: (value, tokens) for name, value in sums.items()}})
        return state

    @staticmethod
    def _with_gradient(samples: Samples, part: np.ndarray) -> np.ndarray:
        """The conversations of `part` that have a gradient."""
        return part[np.isin(part, list(samples.with_gradient))]

    def _batches(self, samples: Samples, part: np.ndarray) -> Iterator[Batch]:
        """The batches of an update: as many as on a single host, and of each an equal part of the rows.

        Every host divides all conversations into rows alike; it draws and writes only those of its own rows.
        """
        found = samples.with_gradient
        chosen = sorted(self._with_gradient(samples, part), key=lambda i: len(found[i].tokens))
        rows = self.batching.fill([self._example(samples, i) for i in chosen], self.section.micro_batch)
        for first in range(0, len(rows), self.section.micro_batch):
            call = rows[first : first + self.section.micro_batch]
            batch = self.batching.collate(call, self.section.micro_batch, EXTRAS)
            yield put_batch(self.batching.mesh, batch)

    def _example(self, samples: Samples, i: int) -> Encoded:
        trajectory = samples.with_gradient[i]
        advantages = np.full(len(trajectory.tokens), samples.advantages[i], np.float32)
        return trajectory_example(trajectory, self.model, logprobs=trajectory.logprobs, advantages=advantages)
