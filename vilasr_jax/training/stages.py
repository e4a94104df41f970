"""The trained stages of a run: their folders, which are finished, and the parameters that they saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vilasr_jax.config import TRAINED, JobConfig
from vilasr_jax.errors import ConfigError
from vilasr_jax.training.duration import stage_steps
from vilasr_jax.training.job_model import JobModel
from vilasr_jax.training.stage import Stage

_TITLES = {"cold_start": "cold start: drawing", "reflect": "reflect: learning", "rl": "rl: GRPO"}


class Stages:
    """The stages of a job in its workdir.

    Args:
      job: the configuration.
      workdir: the run's folder.
      model: shapes and layout of the parameters.
      profile: steps of each stage that the JAX profiler traces.
    """

    def __init__(self, job: JobConfig, workdir: Path, model: JobModel, profile: int = 0):
        self.job, self.workdir, self.model, self.profile = job, workdir, model, profile

    def __getitem__(self, name: str) -> Stage:
        """A trained stage ("cold_start", "reflect", "rl"), as it is in the workdir now."""
        section, folder = getattr(self.job, name), self.workdir / name
        return Stage(folder, stage_steps(folder, section), section.save_every, _TITLES[name], self.profile)

    @property
    def perception(self) -> Stage:
        """The phase before the cold start: a tiny model learns what pre-training gives a published one."""
        section, folder = self.job.cold_start, self.workdir / "cold_start" / "perception"
        return Stage(folder, section.perception_steps, section.save_every, "cold start: seeing", self.profile)

    def finished(self) -> list[str]:
        """The finished stages, in order."""
        return [name for name in TRAINED if self[name].done]

    def last(self) -> str:
        """The last finished stage; "untrained" when there is none."""
        return ["untrained", *self.finished()][-1]

    def load_params(self, name: str, best: bool = False) -> Any:
        """The parameters of a finished stage, the initial ones for "untrained".

        Args:
          name: of the stage.
          best: of the step with the best validation score instead of the last.
        """
        if name == "untrained":
            return self.model.initial_params()
        return self[name].load_params(self.model.abstract_params, best)

    def start_params(self, name: str) -> Any:
        """What a stage starts from: the parameters of the stage before it.

        Where the first stage resumes from a checkpoint they are not read, and only their shapes are returned.

        Raises:
          ConfigError: the stage before it is not finished.
        """
        before = TRAINED[: TRAINED.index(name)]
        if not before:
            return self.model.abstract_params if self.first_is_saved else self.model.initial_params()
        if not self[before[-1]].done:
            raise self.missing(name)
        return self.load_params(before[-1])

    @property
    def first_is_saved(self) -> bool:
        """Whether the first stage resumes from a checkpoint, so that `model.init_from` is not read again."""
        first = self["cold_start"]
        if self.job.cold_start.optimizer.lora_rank:  # frozen weights are read until the stage is finished
            return first.done
        return first.begun or self.perception.begun

    def missing(self, name: str) -> ConfigError:
        """The error of a stage whose predecessor is not finished."""
        before = TRAINED[TRAINED.index(name) - 1]
        return ConfigError(
            f"{name} starts from {before}, which {self.workdir} does not hold yet; "
            f"run `vilasr {before.replace('cold_start', 'sft')}` first, or `vilasr train` for all"
        )
