"""The trained stages of a run in its workdir: their folders, and which are finished."""

from __future__ import annotations

from pathlib import Path

from etils import epath

from vilasr_jax.config import TRAINED, JobConfig
from vilasr_jax.training.duration import stage_steps
from vilasr_jax.training.stage import Stage

_TITLES = {"cold_start": "cold start: drawing", "reflect": "reflect: learning", "rl": "rl: GRPO"}


class StageFolders:
    """The stages of a job, as they are in its workdir now.

    Args:
      job: the configuration.
      workdir: the run's folder, local or, to be read only, `gs://`.
      profile: steps of each stage that the JAX profiler traces.
    """

    def __init__(self, job: JobConfig, workdir: Path | epath.Path, profile: int = 0):
        self.job, self.workdir, self.profile = job, workdir, profile

    def __getitem__(self, name: str) -> Stage:
        """A trained stage ("cold_start", "reflect", "rl")."""
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

    def before(self, name: str) -> str:
        """The stage whose weights a later stage than the first begins with: the one before it in the job.

        A finished stage counts in any case, and of a stage that has begun no other; where there is none, it
        is that of the full order.
        """
        earlier = TRAINED[: TRAINED.index(name)]
        begun = self[name].begun
        known = [stage for stage in earlier if self[stage].done or (not begun and stage in self.job.stages)]
        return (known or earlier)[-1]

    def through(self, name: str) -> list[str]:
        """The stages that the weights of stage `name` have been through, in order, with itself."""
        if name not in TRAINED:
            return []
        return [*(before for before in TRAINED[: TRAINED.index(name)] if self[before].done), name]

    def begun(self) -> list[str]:
        """The stages that have saved a step, in order."""
        seen = [TRAINED[0]] if self.perception.begun else []
        return [name for name in TRAINED if name in seen or self[name].begun]

    def first(self) -> str:
        """The stage that starts from the first weights: the earliest that has begun, else the job's first."""
        return [*self.begun(), *(name for name in TRAINED if name in self.job.stages), TRAINED[0]][0]
