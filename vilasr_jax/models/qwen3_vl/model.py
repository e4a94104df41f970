"""The Qwen3-VL model (arXiv 2511.21631) as one Flax NNX module."""

from flax import nnx

from vilasr_jax.models.qwen3_vl.config import ModelConfig
from vilasr_jax.models.qwen3_vl.vision import VisionTower
from vilasr_jax.models.transformer.model import VisionLanguageModel


class Qwen3VL(VisionLanguageModel):
    """Vision tower with features from several depths, language model and output head."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        super().__init__(config, VisionTower(config, rngs=rngs), rngs=rngs)
