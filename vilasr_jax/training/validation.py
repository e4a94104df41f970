"""Validation during a stage: conversations about validation rows, every few steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vilasr_jax.errors import Stopped
from vilasr_jax.evaluation import figures, score_all, summarize
from vilasr_jax.parallel import from_writer
from vilasr_jax.training import interrupt
from vilasr_jax.training.run import Run
from vilasr_jax.training.stage import SCORE, Stage


def validate(run: Run, params: Any) -> dict[str, float]:
    """Samples conversations about the validation rows; returns accuracy, drawings, corrections and errors."""
    section = run.job.eval
    requests = run.questions.requests(run.questions.validation_rows(section.validation_rows))
    key = run.rollouts.key("validate")
    trajectories = run.rollouts.sample_on_all_hosts(section.sampling, params, requests, key)
    score_all(trajectories, run.reward)
    scores = summarize([figures(trajectory) for trajectory in trajectories])
    return {f"val_{name}": scores[name] for name in ("accuracy", "drawings", "corrected", "errors")}


class Validation:
    """The scores of a stage's model after some of its steps.

    Args:
      stage: the stage that is trained.
      every: steps between two validations; 0: none.
      scores: computes scores of parameters, `val_accuracy` among them.
      last: whether the last step is validated, too.
    """

    def __init__(
        self, stage: Stage, every: int, scores: Callable[[Any], dict[str, float]], last: bool = False
    ):
        self.stage, self.every, self.scores, self.last = stage, every, scores, last

    def due(self, step: int) -> bool:
        """Whether the model is validated after a step."""
        return self.every > 0 and (step % self.every == 0 or (self.last and step == self.stage.steps))

    def __call__(self, step: int, params: Any) -> dict[str, float] | None:
        """The scores after a step, empty where none are due.

        None: a stop request came first; the step is saved without scores, and the next run's `catch_up` adds
        them. After the last step of a stage the request waits until the scores are computed.
        """
        if not self.due(step):
            return {}
        if step == self.stage.steps:
            with interrupt.deferred():
                return self.scores(params)
        try:
            return self.scores(params)
        except Stopped:
            return None

    def catch_up(self, step: int, params: Any, save: Callable[..., None]) -> None:
        """Adds the scores of the step that a run resumes from, where a stop request came before them.

        Args:
          step: steps done.
          params: parameters after that step.
          save: `save(step, score=...)` saves the step with its score; called if the step is due to be saved.
        """
        if not (step and self.due(step)):
            return
        if SCORE not in from_writer(lambda: self.stage.logged(step)):
            scores = self.scores(params)
            if self.stage.save_due(step):
                save(step, score=scores[SCORE])
            self.stage.amend(step, **scores)  # last: a step without it catches up
