"""Qwen2.5-VL (arXiv 2502.13923) as other packages use it."""

from vilasr_jax.models.qwen2_5_vl import flops, hf_config, hf_names
from vilasr_jax.models.qwen2_5_vl.chat import CHAT, CHAT_TEMPLATE, DEFAULT_SYSTEM
from vilasr_jax.models.qwen2_5_vl.config import IMAGES, PRESETS, PUBLISHED_SIZES, ModelConfig
from vilasr_jax.models.transformer.base_family import TransformerFamily
from vilasr_jax.models.transformer.positions import mrope_positions


class Qwen2_5_VLFamily(TransformerFamily):
    """Windowed vision tower, M-RoPE by sections, coordinates in pixels of the resized image."""

    model_type = ModelConfig.model_type
    title = "Qwen2.5-VL"
    config_class = ModelConfig
    presets = PRESETS
    published_sizes = PUBLISHED_SIZES
    images = IMAGES
    processor_class = "Qwen2_5_VLProcessor"
    chat = CHAT
    default_system = DEFAULT_SYSTEM
    chat_template = CHAT_TEMPLATE

    positions = staticmethod(mrope_positions)
    config_from_hf = staticmethod(hf_config.config_from_hf)
    config_to_hf = staticmethod(hf_config.config_to_hf)
    published_name = staticmethod(hf_names.published_name)
    nested_name = staticmethod(hf_names.nested_name)
    vision_flops = staticmethod(flops.vision_forward)
    hf_tensors = staticmethod(hf_names.hf_tensors)

    def build(self, config, rngs):
        from vilasr_jax.models.qwen2_5_vl.model import Qwen2_5_VL

        return Qwen2_5_VL(config, rngs=rngs)


FAMILY = Qwen2_5_VLFamily()
