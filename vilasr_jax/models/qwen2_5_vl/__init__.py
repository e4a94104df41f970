"""Qwen2.5-VL in Flax NNX: config and presets, model, cache.

What needs JAX, or the registry that holds this family, is imported when it is first used.
"""

import importlib

from vilasr_jax.models.inputs import VisionInput as VisionInput
from vilasr_jax.models.qwen2_5_vl.config import PUBLISHED_SIZES as PUBLISHED_SIZES
from vilasr_jax.models.qwen2_5_vl.config import ModelConfig as ModelConfig
from vilasr_jax.models.qwen2_5_vl.config import VisionConfig as VisionConfig

_LAZY = {
    "KVCache": "vilasr_jax.models.transformer.cache",
    "init_cache": "vilasr_jax.models.transformer.cache",
    "Qwen2_5_VL": "vilasr_jax.models.qwen2_5_vl.model",
    "cached_attention": "vilasr_jax.models.transformer.attention",
    "self_attention": "vilasr_jax.models.transformer.attention",
    "preset": "vilasr_jax.models.registry",
    "Sharding": "vilasr_jax.models.sharding",
    "constrain": "vilasr_jax.models.sharding",
    "layout": "vilasr_jax.models.sharding",
    "param_shardings": "vilasr_jax.models.sharding",
    "partition_specs": "vilasr_jax.models.sharding",
}


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
