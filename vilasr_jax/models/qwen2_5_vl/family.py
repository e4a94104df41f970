"""Qwen2.5-VL (arXiv 2502.13923) as other packages use it."""

from typing import ClassVar

from vilasr_jax.models.family import ModelFamily
from vilasr_jax.models.qwen2_5_vl import flops, hf_config, hf_names
from vilasr_jax.models.qwen2_5_vl.chat import CHAT, CHAT_TEMPLATE, DEFAULT_SYSTEM
from vilasr_jax.models.qwen2_5_vl.config import IMAGES, PRESETS, PUBLISHED_SIZES, ModelConfig, override
from vilasr_jax.models.qwen2_5_vl.positions import mrope_positions


class Qwen2_5_VLFamily(ModelFamily):
    """Windowed vision tower, M-RoPE by sections, coordinates in pixels of the resized picture."""

    model_type = ModelConfig.model_type
    config_class = ModelConfig
    presets = PRESETS
    published_sizes = PUBLISHED_SIZES
    images = IMAGES
    chat = CHAT
    default_system = DEFAULT_SYSTEM
    chat_template = CHAT_TEMPLATE
    kernels: ClassVar = {
        "embed_tokens": "embed_vd",
        "lm_head": "head_dv",
        "q_proj": "q_weight_ldq",
        "k_proj": "kv_weight_ldk",
        "v_proj": "kv_weight_ldk",
        "o_proj": "o_weight_lqd",
        "gate_proj": "mlp_in_ldf",
        "up_proj": "mlp_in_ldf",
        "down_proj": "mlp_out_lfd",
        "qkv": "vision_qkv_ldq",
        "proj": "vision_proj_lqd",
        "patch_embed": "patch_embed_pd",
        "fc1": "merger_in_ww",
        "fc2": "merger_out_wd",
    }

    override = staticmethod(override)
    positions = staticmethod(mrope_positions)
    config_from_hf = staticmethod(hf_config.config_from_hf)
    config_to_hf = staticmethod(hf_config.config_to_hf)
    preprocessor_config = staticmethod(hf_config.preprocessor_config)
    published_name = staticmethod(hf_names.published_name)
    nested_name = staticmethod(hf_names.nested_name)
    language_flops = staticmethod(flops.language_forward)
    vision_flops = staticmethod(flops.vision_forward)
    decode_flops = staticmethod(flops.decode_step)
    hf_tensors = staticmethod(hf_names.hf_tensors)

    def build(self, config, rngs):
        from vilasr_jax.models.qwen2_5_vl.model import Qwen2_5_VL

        return Qwen2_5_VL(config, rngs=rngs)

    def init_cache(self, config, batch, max_len, dtype=None):
        from vilasr_jax.models.qwen2_5_vl.cache import init_cache

        return init_cache(config, batch, max_len, dtype)


FAMILY = Qwen2_5_VLFamily()
