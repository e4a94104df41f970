"""The Qwen2.5-VL model (arXiv 2502.13923) as one Flax NNX module."""

from flax import nnx

from vilasr_jax.models.qwen2_5_vl.config import ModelConfig
from vilasr_jax.models.qwen2_5_vl.vision import VisionTower
from vilasr_jax.models.transformer.model import VisionLanguageModel


class Qwen2_5_VL(VisionLanguageModel):
    """Windowed vision tower, language model and output head."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        super().__init__(config, VisionTower(config, rngs=rngs), rngs=rngs)
