"""Which tensor of a published Qwen2.5-VL is which of our weights."""

from collections.abc import Iterator, Mapping

from vilasr_jax.models.hf_tensors import HFTensor
from vilasr_jax.models.qwen2_5_vl.config import ModelConfig
from vilasr_jax.models.transformer.hf_names import BLOCK_ATTENTION, DECODER, tensors
from vilasr_jax.models.transformer.hf_names import flat_name as published_name
from vilasr_jax.models.transformer.hf_names import nested_name as nested_name

_VISION = {
    "norm1/scale": "norm1.weight",
    "norm2/scale": "norm2.weight",
    **BLOCK_ATTENTION,
    **{f"mlp/{p}_proj/kernel": f"mlp.{p}_proj.weight" for p in ("gate", "up", "down")},
    **{f"mlp/{p}_proj/bias": f"mlp.{p}_proj.bias" for p in ("gate", "up", "down")},
}
_SINGLE = {
    "visual/patch_embed/kernel": "visual.patch_embed.proj.weight",
    "visual/merger/ln_q/scale": "visual.merger.ln_q.weight",
    "visual/merger/fc1/kernel": "visual.merger.mlp.0.weight",
    "visual/merger/fc1/bias": "visual.merger.mlp.0.bias",
    "visual/merger/fc2/kernel": "visual.merger.mlp.2.weight",
    "visual/merger/fc2/bias": "visual.merger.mlp.2.bias",
    "language_model/embed_tokens/embedding": "model.embed_tokens.weight",
    "language_model/norm/scale": "model.norm.weight",
    "lm_head/kernel": "lm_head.weight",
}


def hf_tensors(config: ModelConfig, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[HFTensor]:
    """Every published tensor, in the order of the network; `shapes` are our weights' by path."""
    v = config.vision
    patch_shape = (v.hidden_size, v.in_channels, v.temporal_patch_size, v.patch_size, v.patch_size)
    stacks = (
        ("visual/blocks/", "visual.blocks.", _VISION, v.depth),
        ("language_model/layers/", "model.layers.", DECODER, config.num_layers),
    )
    return tensors(shapes, patch_shape, _SINGLE, stacks)


__all__ = ["hf_tensors", "nested_name", "published_name"]
