"""A trained model, opened from the workdir of a run or from a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vilasr_jax.checkpoint import import_hf
from vilasr_jax.config import JobConfig
from vilasr_jax.conversation_settings import question_data_type, read_exported_settings
from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.drawing.prompts import PromptSet
from vilasr_jax.errors import CheckpointError
from vilasr_jax.model_bundle import ModelBundle
from vilasr_jax.models import ModelConfig, family_of
from vilasr_jax.processing import Tokenizer
from vilasr_jax.tasks import Row, get_family
from vilasr_jax.training.run import open_run
from vilasr_jax.workdir import read_job


class TrainedModel(ModelBundle):
    """A model with its parameters."""

    def __init__(
        self, job: JobConfig, config: ModelConfig, tokenizer: Tokenizer, prompts: PromptSet, params: Any
    ):
        super().__init__(job, config, tokenizer, prompts)
        self.params = params

    @property
    def settings(self) -> DrawingSettings:
        """Drawing settings of conversations about a user's question."""
        return self.settings_for(question_data_type(self.job))

    def rows(self, split: str, count: int) -> list[Row]:
        """`count` rows of the first task that the model was trained on; none without a task."""
        if not self.job.tasks:
            return []
        family = get_family(self.job.tasks[0])
        section = getattr(self.job, family.name, None)
        if section is not None:
            section = family.fitted(section, self.images.factor)
        spec = family.spec(section, split)
        return list(family.rows(spec, count))


def open_model(checkpoint: Path) -> TrainedModel:
    """Opens a workdir (its last finished stage) or a Hugging Face folder.

    Raises:
      CheckpointError: the folder is neither, or no stage of the workdir is finished.
    """
    if (checkpoint / "tokenizer").is_dir() and (checkpoint / "config.json").is_file():
        job = read_job(checkpoint)
        run = open_run(job, checkpoint)
        stage, model = run.stages.last(), run.model
        if stage == "untrained":
            raise CheckpointError(f"{checkpoint}: no stage is finished yet; run `vilasr train` on it")
        params = run.stages.load_params(stage, job.eval.best)
        return TrainedModel(job, model.config, model.tokenizer, model.prompts, params)
    if not (checkpoint / "config.json").is_file():
        raise CheckpointError(f"{checkpoint}: neither a workdir of a run nor a Hugging Face model folder")
    job, prompts = read_exported_settings(checkpoint)
    config, params = import_hf(checkpoint, dtype=job.model.dtype)
    tokenizer = Tokenizer.from_dir(checkpoint, family_of(config))
    return TrainedModel(job, config, tokenizer, prompts, params)
