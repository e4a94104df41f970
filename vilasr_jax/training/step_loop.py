"""The loop over the steps of a stage, supervised or RL: metrics, checkpoints and stop requests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn, Self

import optax
from rich.progress import Progress

from vilasr_jax.config import OptimizerSection
from vilasr_jax.errors import Stopped, TrainingError, UserError
from vilasr_jax.parallel import is_writer
from vilasr_jax.progress import COMPILING
from vilasr_jax.training.stage import SCORE, Stage
from vilasr_jax.training.state import Guard


class StepLoop:
    """Iterates over the numbers of a stage's remaining steps, from 1; `finish` ends each step.

    A context manager that closes the stage, so that its last checkpoint and its metrics are complete: after
    the last step, and where a stop request or a `UserError` ends the run. Any other error ends it at once.

    Args:
      stage: where metrics and checkpoints go; its `steps` is set.
      optimizer: the section of the config; says how many updates may be skipped.
      schedule: learning rate by number of updates.
      save: `save(step, score=..., wait=...)` saves the state after a step.
      progress: where the bar is shown.
      bar_metric: the metric that the bar shows.
      steps_done: before this run.
      updates: optimiser updates per step.
      log_every: steps between two lines of metrics; a step that is saved or validated has one in any case.
    """

    def __init__(
        self,
        stage: Stage,
        optimizer: OptimizerSection,
        schedule: optax.Schedule,
        save: Callable[..., None],
        progress: Progress,
        *,
        bar_metric: str,
        steps_done: int,
        updates: int = 1,
        log_every: int = 1,
    ):
        assert stage.steps is not None, "the number of steps is known before training"
        self.stage, self.steps, self.optimizer, self.schedule = stage, stage.steps, optimizer, schedule
        self.save, self.progress, self.bar_metric, self.steps_done = save, progress, bar_metric, steps_done
        self.updates, self.log_every = updates, log_every
        if steps_done and is_writer():
            print(f"{stage.title}: resuming from step {steps_done} of {stage.steps}", file=sys.stderr)
        self.note = COMPILING
        self.bar = progress.add_task(stage.title, total=stage.steps, completed=steps_done, note=self.note)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or issubclass(kind, Stopped | UserError):
            self.stage.close()

    def __iter__(self) -> Iterator[int]:
        for step in range(self.steps_done + 1, self.steps + 1):
            self.stage.trace(step, self.steps_done + 1)
            yield step

    def finish(self, step: int, guard: Guard, scores: Mapping[str, float], stop: bool) -> None:
        """Logs and saves a step where that is due, or where the run stops after it.

        Args:
          step: its number.
          guard: of the state after it, see `check_guard`.
          scores: of its validation; empty where there was none.
          stop: whether a stop request was found.

        Raises:
          TrainingError: too many updates in a row were skipped.
          Stopped: `stop`; the step is saved.
        """
        due = self.stage.save_due(step)
        if due or scores or stop or step % self.log_every == 0:
            learning_rate = float(self.schedule(step * self.updates - 1))
            values = self.stage.log(step, learning_rate=learning_rate, **scores)
            check_guard(guard, self.optimizer)
            self.note = f"{self.bar_metric} {values[self.bar_metric]:.3f}"
        elif self.note == COMPILING:
            self.note = ""
        if due:
            self.save(step, score=scores.get(SCORE), wait=stop)
        elif stop:  # without its score: no run that isn't stopped here has this step to choose as its best
            self.save(step, wait=True)
        self.progress.update(self.bar, completed=step, note=self.note)
        if stop:
            self._stop(step)

    def abandon(self, step: int) -> NoReturn:
        """Stops before a step is done: saves the step before it, if that isn't saved, and raises Stopped."""
        before = step - 1
        if before > self.steps_done and not self.stage.save_due(before):
            self.save(before, wait=True)
        self._stop(before)

    def _stop(self, step: int) -> NoReturn:
        raise Stopped(f"{self.stage.title}: stopped after step {step} of {self.steps}") from None


def check_guard(guard: Guard, optimizer: OptimizerSection) -> None:
    """Raises TrainingError when the guard has skipped too many updates in a row."""
    skipped = int(guard.in_a_row)
    if skipped >= optimizer.max_skipped:
        raise TrainingError(
            f"{skipped} updates in a row were skipped, their gradients not finite"
            + (f" or {optimizer.spike:g} times their running mean" if optimizer.spike else "")
            + "; lower optimizer.learning_rate and start again from the last checkpoint"
        )
