"""A trained model, opened from any checkpoint."""

from __future__ import annotations

from typing import Any

from etils import epath
from jax.sharding import Mesh

from vilasr_jax.config import JobConfig
from vilasr_jax.conversation_settings import question_data_type
from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.drawing.prompts import PromptSet
from vilasr_jax.model_bundle import ModelBundle
from vilasr_jax.models import ModelConfig
from vilasr_jax.open_checkpoint import Checkpoint, open_checkpoint
from vilasr_jax.processing import Tokenizer
from vilasr_jax.tasks import Row, get_family


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


def open_model(checkpoint: epath.PathLike, mesh: Mesh | None = None) -> TrainedModel:
    """Opens a checkpoint of any kind (see `open_checkpoint`) and loads its weights.

    Args:
      checkpoint: where it is.
      mesh: of the devices of all hosts, which must all call this; None: one device.

    Raises:
      CheckpointError: `checkpoint` is no model.
    """
    return load_model(open_checkpoint(checkpoint), mesh)


def load_model(opened: Checkpoint, mesh: Mesh | None = None) -> TrainedModel:
    """Loads the weights of an opened checkpoint; see `open_model`."""
    job, prompts = opened.conversation
    config = opened.config.replace(dtype=job.model.dtype)
    return TrainedModel(job, config, opened.tokenizer, prompts, opened.load(mesh))
