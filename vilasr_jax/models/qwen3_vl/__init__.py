"""Qwen3-VL in Flax NNX: config and presets, vision tower, weight names."""

from vilasr_jax.models.qwen3_vl.config import PUBLISHED_SIZES as PUBLISHED_SIZES
from vilasr_jax.models.qwen3_vl.config import ModelConfig as ModelConfig
from vilasr_jax.models.qwen3_vl.config import VisionConfig as VisionConfig
