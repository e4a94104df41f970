"""The model that a job trains, each part read or created in the workdir when it is first needed."""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh

from vilasr_jax.checkpoint.hf_config import config_from_hf, hf_family, read_json
from vilasr_jax.checkpoint.hf_import import import_hf, open_hf
from vilasr_jax.config import JobConfig
from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.drawing.prompts import PromptSet
from vilasr_jax.files import write_json
from vilasr_jax.model_bundle import ModelBundle
from vilasr_jax.models import ModelConfig, ModelFamily, family_of, preset, published_sizes
from vilasr_jax.models.sharding import param_shardings, random_params
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
        if self.job.tokenizer or self.job.model.init_from:
            return Tokenizer.from_dir(self.job.tokenizer or self.job.model.init_from, self.family)
        phrases = longest_first(common_phrases().union(*self.tasks.phrases()))
        return train_tiny_tokenizer(self.tasks.texts(), phrases, self.job.tokenizer_size, self.family)

    @property
    def has_tokenizer(self) -> bool:
        """Whether the workdir holds its tokenizer."""
        return (self.workdir / "tokenizer").exists()

    @cached_property
    def family(self) -> ModelFamily:
        """The family named by config.json of `job.model.init_from`, else the preset's."""
        if self._saved_config.exists():
            return hf_family(read_json(self._saved_config), where=str(self._saved_config))
        if source := self.job.model.init_from:
            path = epath.Path(source) / "config.json"
            return hf_family(read_json(path), where=str(path))
        return family_of(preset(self.job.model.preset))

    @cached_property
    def config(self) -> ModelConfig:  # type: ignore[override]  # read when needed
        """The config of `job.model.init_from`, else of the preset.

        A preset that isn't a published size gets vocabulary size and special ids from the tokenizer.
        """
        job, special = self.job, self.tokenizer.special
        fields: dict[str, Any] = dict(
            dtype=job.model.dtype,
            param_dtype=job.model.param_dtype,
            remat=job.model.remat,
            attention=job.model.attention,
            context_parallel=job.mesh.context_parallel,
        )
        if self._saved_config.exists():
            return config_from_hf(read_json(self._saved_config), where=str(self._saved_config), **fields)
        if job.model.init_from:
            return open_hf(job.model.init_from, **fields)[0]
        if job.model.preset not in published_sizes():
            fields |= dict(vocab_size=-(-self.tokenizer.vocab_size // 8) * 8, **special.config_fields())
        return preset(job.model.preset, **fields)

    @property
    def _saved_config(self) -> epath.Path:
        return epath.Path(self.workdir) / "model" / "config.json"

    def save_config(self) -> None:
        """Copies config.json of `model.init_from` to the workdir, which then opens without that folder."""
        source = self.job.model.init_from
        if source and is_writer() and not self._saved_config.exists():
            self._saved_config.parent.mkdir(parents=True, exist_ok=True)
            decided = {"tie_word_embeddings": open_hf(source)[0].tie_word_embeddings}  # as its weights say
            values = read_json(epath.Path(source) / "config.json") | decided
            if "text_config" in values:
                values["text_config"] = values["text_config"] | decided
            write_json(self._saved_config, values)

    @property
    def has_initial_params(self) -> bool:
        """Whether `initial_params` can be created: always random ones, else if `model.init_from` exists."""
        source = self.job.model.init_from
        return not any_host(bool(source) and not epath.Path(source).is_dir())

    def initial_params(self) -> Any:
        """The parameters of `job.model.init_from`, else random ones from the job's seed, on the mesh."""
        model = self.job.model
        if model.init_from:
            return import_hf(model.init_from, param_dtype=model.param_dtype, mesh=self.mesh)[1]
        return random_params(self.config, self.job.seed, self.mesh)

    @cached_property
    def abstract_params(self) -> Any:
        """Shapes, dtypes and shardings of the parameters, without values."""
        return jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            self._abstract[1],
            param_shardings(self._abstract[1], self.mesh),
        )
