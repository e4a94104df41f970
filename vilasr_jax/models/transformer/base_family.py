"""What the families with this decoder have in common."""

from typing import Any, ClassVar

from vilasr_jax.models.family import ModelFamily
from vilasr_jax.models.transformer import flops, hf_config
from vilasr_jax.models.transformer.config import override


class TransformerFamily(ModelFamily):
    """A family whose language model is `language.LanguageModel`.

    Attributes:
      processor_class: the name of transformers' processor, in exported folders.
    """

    processor_class: ClassVar[str]

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
    language_flops = staticmethod(flops.language_forward)
    decode_flops = staticmethod(flops.decode_step)

    def preprocessor_config(self, config: Any, min_pixels: int, max_pixels: int) -> dict[str, Any]:
        """As the base class says."""
        return hf_config.preprocessor_config(
            config, self.images, self.processor_class, min_pixels, max_pixels
        )

    def init_cache(self, config, batch, max_len, dtype=None):
        from vilasr_jax.models.transformer.cache import init_cache

        return init_cache(config, batch, max_len, dtype)
