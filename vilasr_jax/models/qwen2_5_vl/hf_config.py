"""Qwen2.5-VL's config.json <-> `ModelConfig`, in both layouts that exist.

flat, as published:       text sizes at the top, rope_scaling {"type": "mrope", ...}, vision_config.in_chans
nested, transformers 5:   text_config, rope_parameters, vision_config.in_channels
"""

from collections.abc import Mapping
from typing import Any

from vilasr_jax.errors import CheckpointError
from vilasr_jax.models.qwen2_5_vl.config import IMAGES, ModelConfig, VisionConfig
from vilasr_jax.models.transformer.hf_config import (
    Reader,
    build,
    check_text,
    text_fields,
    text_to_hf,
    token_ids_to_hf,
)

# What a vision_config may say of how images are cut: they are cut before a model is built.
_PICTURES = {
    "in_chans": 3,
    "in_channels": 3,
    "patch_size": IMAGES.patch_size,
    "temporal_patch_size": IMAGES.temporal_patch_size,
    "spatial_merge_size": IMAGES.merge_size,
    "window_size": IMAGES.window_size,
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
    vision = Reader(config.get("vision_config") or {}, f"{where}: vision_config")
    check_text(text, where)
    if vision.get("hidden_act", "silu") != "silu":
        raise CheckpointError(f"{where}: vision_config.hidden_act other than silu is not implemented")
    vision.check(_PICTURES)
    fields = dict(
        text_fields(config, where),
        vision=VisionConfig(
            depth=vision.need("depth"),
            hidden_size=vision.need("hidden_size"),
            intermediate_size=vision.need("intermediate_size"),
            num_heads=vision.need("num_heads"),
            out_hidden_size=vision.need("out_hidden_size"),
            fullatt_block_indexes=tuple(vision.get("fullatt_block_indexes", (7, 15, 23, 31))),
            tokens_per_second=vision.get("tokens_per_second", 4),
            rope_theta=float((vision.get("rope_parameters", {})).get("rope_theta", 10000.0)),
        ),
    )
    return build(ModelConfig, {**fields, **overrides}, where)


def config_to_hf(config: ModelConfig, *, layout: str, dtype: str | None = None) -> dict[str, Any]:
    """What config.json says of `config` in a layout ("flat" or "nested"); `dtype`: of the weights."""
    v, dtype, nested = config.vision, dtype or config.param_dtype, layout == "nested"
    text = text_to_hf(config, use_sliding_window=False)
    section = list(config.mrope_section)
    vision = {
        "model_type": "qwen2_5_vl_vision" if nested else "qwen2_5_vl",
        "depth": v.depth,
        "hidden_act": "silu",
        "hidden_size": v.hidden_size,
        "intermediate_size": v.intermediate_size,
        "num_heads": v.num_heads,
        "in_channels" if nested else "in_chans": v.in_channels,
        "out_hidden_size": v.out_hidden_size,
        "patch_size": v.patch_size,
        "spatial_merge_size": v.spatial_merge_size,
        "window_size": v.window_size,
        "fullatt_block_indexes": list(v.fullatt_block_indexes),
        "tokens_per_second": v.tokens_per_second,
        "temporal_patch_size": v.temporal_patch_size,
    }
    common = {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        **token_ids_to_hf(config),
        "vision_config": vision,
    }
    if nested:
        rope = {"rope_type": "default", "rope_theta": config.rope_theta, "mrope_section": section}
        text |= {"model_type": "qwen2_5_vl_text", "rope_parameters": rope, "dtype": dtype}
        return {**common, "dtype": dtype, "text_config": text}
    rope = {"type": "mrope", "mrope_section": section}
    return {**common, **text, "rope_theta": config.rope_theta, "rope_scaling": rope, "torch_dtype": dtype}
