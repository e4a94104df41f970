"""The trained stages of a run: the parameters that they saved, and those that each starts from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from vilasr_jax.checkpoint.hf_layout import Weights
from vilasr_jax.checkpoint.sharded_import import load_sharded
from vilasr_jax.config import TRAINED, JobConfig
from vilasr_jax.errors import ConfigError
from vilasr_jax.open_checkpoint import stage_weights
from vilasr_jax.parallel import alone, is_writer
from vilasr_jax.training.job_model import JobModel
from vilasr_jax.training.lora import load_int8_base
from vilasr_jax.training.stage_folders import StageFolders


class Stages(StageFolders):
    """The stages of a job in its workdir, with their parameters.

    Args:
      job: the configuration.
      workdir: the run's folder.
      model: shapes and layout of the parameters.
      profile: steps of each stage that the JAX profiler traces.
    """

    def __init__(self, job: JobConfig, workdir: Path, model: JobModel, profile: int = 0):
        super().__init__(job, workdir, profile)
        self.model = model

    def load_params(self, name: str, best: bool = False) -> Any:
        """The parameters of a finished stage, the initial ones for "untrained".

        Args:
          name: of the stage.
          best: of the step with the best validation score instead of the last.
        """
        if name == "untrained":
            return self.model.initial_params()
        if getattr(self.job, name).optimizer.lora_base:
            return load_sharded(self._stored(name, best), self.model.mesh)
        return self[name].load_params(self.model.abstract_params, best)

    def _stored(self, name: str, best: bool = False) -> Weights:
        """The stored weights of a finished stage, in the dtypes of the job's model."""
        config, step = self.model.config, self[name].step(best)
        assert step is not None, "the stage is finished"
        return stage_weights(self.job, self.workdir, name, step, config)[1](config)

    def sampled_weights(self, name: str, best: bool = False) -> Any:
        """What `Engine.load` needs to sample with a stage: stored weights, which it reads a part at a time.

        On several hosts, which read each weight once, and of random weights it is the parameters. See
        `load_params` for the arguments.
        """
        if name != "untrained" and alone():
            return self._stored(name, best)
        if self.job.model.init_from and alone():
            return self.model.source.weights(self.model.config)
        return self.load_params(name, best)

    def start_params(self, name: str) -> Any:
        """What a stage starts from: the parameters of the stage before it, or the first weights.

        Of LoRA with an int8 base they are packed, as `lora.int8_base`.

        A run starts from its first weights with the cold start, or, where `model.init_from` names them, with
        any stage (RL from a published cold start, for one). Where that stage resumes from a checkpoint they
        are not read, and only their shapes are returned.

        Raises:
          ConfigError: the stage before it is not finished.
        """
        source = self.job.model.init_from
        if name == TRAINED[0] or (source and name == self.first()):
            if self.first_is_saved:
                return self.model.abstract_params
            if name != TRAINED[0] and is_writer():
                print(f"{name} starts from {self.model.source.fixed_address}", file=sys.stderr)
            before = "untrained"
        else:
            before = self.before(name)
            if not self[before].done:
                raise self.missing(name)
        if not getattr(self.job, name).optimizer.lora_base:
            return self.load_params(before)
        config = self.model.config
        stored = self.model.source.weights(config) if before == "untrained" else self._stored(before)
        return load_int8_base(stored, self.model.mesh)

    @property
    def first_is_saved(self) -> bool:
        """Whether the run's first stage resumes, so that `model.init_from` is not read again."""
        name = self.first()
        if getattr(self.job, name).optimizer.lora_rank:  # frozen weights are read until the stage is finished
            return self[name].done
        return name in self.begun()

    def missing(self, name: str) -> ConfigError:
        """The error of a stage whose predecessor is not finished."""
        before = self.before(name)
        return ConfigError(
            f"{name} starts from {before}, which {self.workdir} does not hold yet; "
            f"run `vilasr {before.replace('cold_start', 'sft')}` first, or `vilasr train` for all; or name "
            f"the weights that {name} starts from in config.model.init_from, with a new --workdir"
        )
