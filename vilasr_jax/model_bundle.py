"""A model's description with all that its conversations need, shared by training, sampling, serving and
inspection; and the one place that builds a rollout engine."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from vilasr_jax.config import EngineSection, JobConfig, SamplingSection
from vilasr_jax.conversation_settings import drawing_settings
from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.drawing.prompts import PromptSet
from vilasr_jax.models import ImageSpec, ModelConfig, ModelFamily, family_of
from vilasr_jax.models.params import abstract, decoder_layers, output_head
from vilasr_jax.processing import Tokenizer
from vilasr_jax.rollout import Engine, suppressed_tokens


class ModelBundle:
    """A model without its weights: structure, tokenizer, prompts, and the job they belong to.

    Attributes:
      job: the configuration; its `drawing`, `image` and `eval` sections say how conversations are held.
      config: sizes and dtypes.
      tokenizer: the model's.
      prompts: the texts that conversations begin with.
    """

    def __init__(self, job: JobConfig, config: ModelConfig, tokenizer: Tokenizer, prompts: PromptSet):
        self.job, self.config, self.tokenizer, self.prompts = job, config, tokenizer, prompts

    @property
    def family(self) -> ModelFamily:
        """The model's family."""
        return family_of(self.config)

    @property
    def images(self) -> ImageSpec:
        """How the family resizes images and cuts them into patches."""
        return self.family.images

    @cached_property
    def _abstract(self) -> tuple[nnx.GraphDef, Any]:
        return abstract(self.config)  # the config is read before tracing: hosts wait for the tokenizer

    @property
    def graphdef(self) -> nnx.GraphDef:
        """The model's structure, for `nnx.merge`."""
        return self._abstract[0]

    @property
    def parameter_count(self) -> int:
        """Number of parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(self._abstract[1]))

    @property
    def matmul_parameters(self) -> int:
        """Parameters that each token is multiplied with: decoder layers and output head, not the token table.

        The vision tower is left out, whose patches are not counted as tokens.
        """
        params = self._abstract[1]
        parts = [decoder_layers(params), output_head(params, self.config)]
        return sum(leaf.size for leaf in jax.tree.leaves(parts))

    @cached_property
    def suppressed(self) -> np.ndarray:
        """[v] bool, tokens that the model may not write: padding, and special ones that do not end a turn."""
        return suppressed_tokens(self.tokenizer, self.config.vocab_size)

    def settings_for(self, data_type: str) -> DrawingSettings:
        """Drawing settings of conversations about rows of a data type (`Row.data_type`)."""
        return drawing_settings(self.job, data_type, self.prompts, self.family)


def make_engine(
    model: ModelBundle,
    engine: EngineSection,
    sampling: SamplingSection,
    patches: tuple[int, ...],
    mesh: Mesh,
    process: int | None = None,
) -> Engine:
    """Builds a rollout engine; it compiles at its first conversations.

    Args:
      model: whose conversations it holds.
      engine, sampling: the config sections.
      patches: buckets for the number of patches of an image.
      mesh: the devices of all hosts.
      process: index of the host that samples; None: this process.

    Raises:
      ConfigError: sizes that contradict each other.
    """
    return Engine(
        model.config,
        model.graphdef,
        model.tokenizer,
        model.suppressed,
        engine=engine,
        sampling=sampling,
        patches=patches,
        mesh=mesh,
        process=process,
    )
