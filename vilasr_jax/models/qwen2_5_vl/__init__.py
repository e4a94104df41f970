"""Qwen2.5-VL in Flax NNX: config and presets, model, cache, sharding layout."""

from vilasr_jax.models.inputs import VisionInput as VisionInput
from vilasr_jax.models.qwen2_5_vl.attention import cached_attention as cached_attention
from vilasr_jax.models.qwen2_5_vl.attention import self_attention as self_attention
from vilasr_jax.models.qwen2_5_vl.cache import KVCache as KVCache
from vilasr_jax.models.qwen2_5_vl.cache import init_cache as init_cache
from vilasr_jax.models.qwen2_5_vl.config import PUBLISHED_SIZES as PUBLISHED_SIZES
from vilasr_jax.models.qwen2_5_vl.config import ModelConfig as ModelConfig
from vilasr_jax.models.qwen2_5_vl.config import VisionConfig as VisionConfig
from vilasr_jax.models.qwen2_5_vl.config import preset as preset
from vilasr_jax.models.qwen2_5_vl.model import Qwen2_5_VL as Qwen2_5_VL
from vilasr_jax.models.qwen2_5_vl.sharding import Sharding as Sharding
from vilasr_jax.models.qwen2_5_vl.sharding import constrain as constrain
from vilasr_jax.models.qwen2_5_vl.sharding import layout as layout
from vilasr_jax.models.qwen2_5_vl.sharding import param_shardings as param_shardings
from vilasr_jax.models.qwen2_5_vl.sharding import partition_specs as partition_specs
