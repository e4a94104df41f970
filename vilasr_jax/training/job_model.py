"""The model that a job trains, each part read or created in the workdir when it is first needed."""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from vilasr_jax.checkpoint.first_weights import note_first_weights
from vilasr_jax.checkpoint.hf_config import config_to_hf
from vilasr_jax.config import JobConfig
from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.drawing.prompts import PromptSet
from vilasr_jax.errors import CheckpointError, MissingCheckpointError
from vilasr_jax.files import write_json
from vilasr_jax.model_bundle import ModelBundle
from vilasr_jax.models import ModelConfig, ModelFamily, family_of
from vilasr_jax.models.sharding import param_shardings, random_params
from vilasr_jax.open_checkpoint import SAVED_CONFIG, Checkpoint, open_first, run_config, run_family
from vilasr_jax.parallel import any_host, from_writer, is_writer
from vilasr_jax.processing import Tokenizer, train_tiny_tokenizer
from vilasr_jax.tasks.tokenizer_phrases import common_phrases, longest_first
from vilasr_jax.training.questions import Tasks
from vilasr_jax.training.wording import job_prompts


class JobModel(ModelBundle):
    """A job's model, and its parameters before training.

    Args:
      job: the configuration.
      workdir: the run's folder; holds the tokenizer, and config.json of a model with pre-trained weights.
      mesh: where parameters are placed.
      tasks: whose texts a new tokenizer is trained on, with those of imported data.
    """

    def __init__(self, job: JobConfig, workdir: Path, mesh: Mesh, tasks: Tasks):
        self.job, self.workdir, self.mesh, self.tasks = job, workdir, mesh, tasks

    @cached_property
    def prompts(self) -> PromptSet:  # type: ignore[override]  # read when needed, an attribute above
        """The texts that conversations begin with."""
        return job_prompts(self.job, self.workdir)

    @cached_property
    def settings(self) -> DrawingSettings:
        """Drawing settings of the job, before the limits of one data type (see `drawing_settings`)."""
        return self.settings_for("vqa")

    @cached_property
    def tokenizer(self) -> Tokenizer:  # type: ignore[override]  # read when needed
        """Read from the workdir; saved there first, from `job.tokenizer` or `model.init_from`, or trained."""
        saved = self.workdir / "tokenizer"

        def save() -> None:
            if not saved.exists():
                draft = saved.with_name(f"{saved.name}.draft")
                shutil.rmtree(draft, ignore_errors=True)  # left by a killed run
                self._new_tokenizer().save(draft)
                draft.rename(saved)

        from_writer(save)
        return Tokenizer.from_dir(saved, self.family)

    def _new_tokenizer(self) -> Tokenizer:
        if self.job.tokenizer:
            return Tokenizer.from_dir(self.job.tokenizer, self.family)
        if self.job.model.init_from:
            return self.source.tokenizer
        phrases = longest_first(common_phrases().union(*self.tasks.phrases()))
        return train_tiny_tokenizer(self.tasks.texts(), phrases, self.job.tokenizer_size, self.family)

    @property
    def has_tokenizer(self) -> bool:
        """Whether the workdir holds its tokenizer."""
        return (self.workdir / "tokenizer").exists()

    @cached_property
    def source(self) -> Checkpoint:
        """The checkpoint `job.model.init_from` as it was when the run began, opened.

        Raises:
          CheckpointError: there is none, or it can't be opened.
        """
        try:
            return open_first(self.job, self.workdir)
        except CheckpointError as error:
            raise type(error)(f"config.model.init_from: {error}") from error

    @property
    def _reads_source(self) -> bool:
        return bool(self.job.model.init_from) and not self._saved_config.exists()

    @cached_property
    def family(self) -> ModelFamily:
        """That of `job.model.init_from`, else the preset's."""
        return family_of(self.source.config) if self._reads_source else run_family(self.job, self.workdir)

    @cached_property
    def config(self) -> ModelConfig:  # type: ignore[override]  # read when needed
        """That of `job.model.init_from`, else of the preset (see `run_config`)."""
        model = self.job.model
        fields: dict[str, Any] = dict(
            dtype=model.dtype,
            param_dtype=model.param_dtype,
            remat=model.remat,
            attention=model.attention,
            context_parallel=self.job.mesh.context_parallel,
        )
        if self._reads_source:
            return self.source.config.replace(**fields)
        return run_config(self.job, self.workdir, self.tokenizer, **fields)

    @property
    def _saved_config(self) -> Path:
        return self.workdir / SAVED_CONFIG

    def save_config(self) -> None:
        """Writes the config of `model.init_from` into the workdir, which then opens without it.

        A new workdir also gets a note on the weights, so that it never reads others later.
        """
        if is_writer() and self._reads_source:
            if not self.has_tokenizer:  # of a run of an earlier version nobody knows what it began with
                note_first_weights(self.workdir, self.source.fixed_address, self.source.weight_files)
            write_json(self._saved_config, config_to_hf(self.source.config))

    @property
    def has_initial_params(self) -> bool:
        """Whether `initial_params` can be created: always random ones, else if `model.init_from` is there."""

        def is_missing() -> bool:
            try:
                return self.job.model.init_from != "" and self.source is None
            except MissingCheckpointError:
                return True

        return not any_host(is_missing())

    def initial_params(self) -> Any:
        """The parameters of `job.model.init_from`, else random ones from the job's seed, on the mesh."""
        if self.job.model.init_from:
            return self.source.load(self.mesh, self.job.model.param_dtype)
        return random_params(self.config, self.job.seed, self.mesh)

    @cached_property
    def abstract_params(self) -> Any:
        """Shapes, dtypes and shardings of the parameters, without values."""
        return jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            self._abstract[1],
            param_shardings(self._abstract[1], self.mesh),
        )
