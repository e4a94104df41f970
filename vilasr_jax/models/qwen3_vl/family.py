"""Qwen3-VL (arXiv 2511.21631), its dense sizes, as other packages use it."""

from typing import ClassVar

from vilasr_jax.models.qwen3_vl import flops, hf_config, hf_names
from vilasr_jax.models.qwen3_vl.chat import CHAT, CHAT_TEMPLATE
from vilasr_jax.models.qwen3_vl.config import IMAGES, PRESETS, PUBLISHED_SIZES, ModelConfig
from vilasr_jax.models.transformer.base_family import TransformerFamily
from vilasr_jax.models.transformer.positions import mrope_positions


class Qwen3VLFamily(TransformerFamily):
    """Vision features from several depths, interleaved M-RoPE, coordinates from 0 to 1000."""

    model_type = ModelConfig.model_type
    title = "Qwen3-VL"
    config_class = ModelConfig
    presets = PRESETS
    published_sizes = PUBLISHED_SIZES
    images = IMAGES
    processor_class = "Qwen3VLProcessor"
    coordinates = 1000
    timestamp = "<{seconds:.1f} seconds>"
    chat = CHAT
    chat_template = CHAT_TEMPLATE
    table_key = "model.language_model.embed_tokens.weight"
    kernels: ClassVar = {**TransformerFamily.kernels, "pos_embed": "patch_embed_pd"}

    config_from_hf = staticmethod(hf_config.config_from_hf)
    config_to_hf = staticmethod(hf_config.config_to_hf)
    published_name = staticmethod(hf_names.published_name)
    vision_flops = staticmethod(flops.vision_forward)
    hf_tensors = staticmethod(hf_names.hf_tensors)

    def nested_name(self, key):
        """The key: these names are published."""
        return key

    def positions(self, ids, grids, special, **clip):
        """As the base class says; each frame of a clip is an image, after the text of its time."""
        frames = [(1, rows, columns) for count, rows, columns in grids for _ in range(count)]
        return mrope_positions(ids, frames, special, start=clip.get("start", 0), merge_size=IMAGES.merge_size)

    def build(self, config, rngs):
        from vilasr_jax.models.qwen3_vl.model import Qwen3VL

        return Qwen3VL(config, rngs=rngs)


FAMILY = Qwen3VLFamily()
