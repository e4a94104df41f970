"""A trained model, opened from any checkpoint."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from etils import epath

from vilasr_jax.checkpoint.hf_layout import Weights
from vilasr_jax.checkpoint.sharded_import import load_sharded
from vilasr_jax.config import JobConfig, with_weights
from vilasr_jax.conversation_settings import question_data_type
from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.drawing.prompts import PromptSet
from vilasr_jax.model_bundle import ModelBundle
from vilasr_jax.models import ModelConfig
from vilasr_jax.open_checkpoint import Checkpoint, open_checkpoint
from vilasr_jax.processing import Tokenizer
from vilasr_jax.tasks import Row, get_family


class TrainedModel(ModelBundle):
    """A model with its weights.

    Args:
      job, config, tokenizer, prompts: as in `ModelBundle`.
      weights: parameters (nnx state), or stored weights that are read when they are used.
    """

    def __init__(
        self, job: JobConfig, config: ModelConfig, tokenizer: Tokenizer, prompts: PromptSet, weights: Any
    ):
        super().__init__(job, config, tokenizer, prompts)
        self.weights = weights

    @cached_property
    def params(self) -> Any:
        """The parameters as `nnx.merge` reads them; a sampler's are brought by `Engine.load`."""
        return load_sharded(self.weights) if isinstance(self.weights, Weights) else self.weights

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


def open_model(checkpoint: epath.PathLike, weights: str = "") -> TrainedModel:
    """Opens a checkpoint of any kind (see `open_checkpoint`); its weights are read when they are used.

    Args:
      checkpoint: where it is.
      weights: what they are while the model samples, one of `config.WEIGHTS`; "": as its settings say.

    Raises:
      CheckpointError: `checkpoint` is no model.
    """
    return trained_model(open_checkpoint(checkpoint), weights)


def trained_model(opened: Checkpoint, weights: str = "") -> TrainedModel:
    """The model of an opened checkpoint; see `open_model`."""
    job, prompts = opened.conversation
    job = with_weights(job, weights)
    config = opened.config.replace(dtype=job.model.dtype)
    return TrainedModel(job, config, opened.tokenizer, prompts, opened.weights(config))
