"""Qwen3-VL's config.json <-> `ModelConfig`, in both layouts that exist.

flat, as published:       text_config with rope_theta and rope_scaling (an older transformers wrote it)
nested, transformers 5:   text_config with rope_parameters
"""

from collections.abc import Mapping
from typing import Any

from vilasr_jax.errors import CheckpointError
from vilasr_jax.models.qwen3_vl.config import IMAGES, ModelConfig, VisionConfig
from vilasr_jax.models.transformer.hf_config import (
    Reader,
    build,
    check_text,
    text_fields,
    text_to_hf,
    token_ids_to_hf,
)

# What a vision_config may say of how images are cut, and of the tower's functions.
_FIXED = {
    "in_channels": 3,
    "patch_size": IMAGES.patch_size,
    "temporal_patch_size": IMAGES.temporal_patch_size,
    "spatial_merge_size": IMAGES.merge_size,
    "hidden_act": "gelu_pytorch_tanh",
}


def config_from_hf(config: Mapping[str, Any], *, where: str, **overrides) -> ModelConfig:
    """A `ModelConfig` from a parsed config.json of either layout.

    Args:
      config: the parsed file.
      where: what to call it in errors.
      **overrides: fields of `ModelConfig` to set, such as dtype.

    Raises:
      CheckpointError: a missing size, or a choice this model does not implement.
    """
    text = config.get("text_config") or config
    check_text(text, where)
    if text.get("attention_bias"):
        raise CheckpointError(f"{where}: attention_bias is not implemented")
    vision = Reader(config.get("vision_config") or {}, f"{where}: vision_config")
    vision.check(_FIXED)
    places = vision.get("num_position_embeddings", 2304)
    side = round(places**0.5)
    if side * side != places:
        raise CheckpointError(f"{vision.where}: num_position_embeddings is {places}, which isn't a square")
    fields = dict(
        text_fields(
            {**config, "text_config": {"head_dim": 128, **text}},
            where,
            section=(24, 20, 20),
            eps=1e-6,
            theta=5e5,
        ),
        vision=VisionConfig(
            depth=vision.need("depth"),
            hidden_size=vision.need("hidden_size"),
            intermediate_size=vision.need("intermediate_size"),
            num_heads=vision.need("num_heads"),
            out_hidden_size=vision.need("out_hidden_size"),
            position_side=side,
            deepstack_block_indexes=tuple(vision.get("deepstack_visual_indexes", (8, 16, 24))),
            rope_theta=float((vision.get("rope_parameters", {})).get("rope_theta", 10000.0)),
        ),
    )
    return build(ModelConfig, {**fields, **overrides}, where)


def config_to_hf(config: ModelConfig, *, layout: str, dtype: str | None = None) -> dict[str, Any]:
    """What config.json says of `config` in a layout ("flat" or "nested"); `dtype`: of the weights."""
    v, dtype, nested = config.vision, dtype or config.param_dtype, layout == "nested"
    section = {"mrope_section": list(config.mrope_section), "mrope_interleaved": True, "rope_type": "default"}
    text = {
        "model_type": "qwen3_vl_text",
        **text_to_hf(config, attention_bias=False),
        "head_dim": config.head_dim,
        "dtype": dtype,
        "tie_word_embeddings": config.tie_word_embeddings,
    }
    if nested:
        text["rope_parameters"] = {**section, "rope_theta": config.rope_theta}
    else:
        text |= {"rope_theta": config.rope_theta, "rope_scaling": section}
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        **token_ids_to_hf(config),
        "dtype": dtype,
        "text_config": text,
        "vision_config": {
            "model_type": "qwen3_vl_vision" if nested else "qwen3_vl",
            "depth": v.depth,
            "hidden_size": v.hidden_size,
            "intermediate_size": v.intermediate_size,
            "num_heads": v.num_heads,
            "out_hidden_size": v.out_hidden_size,
            "num_position_embeddings": v.position_side**2,
            "deepstack_visual_indexes": list(v.deepstack_block_indexes),
            "initializer_range": 0.02,
            **_FIXED,
        },
    }
