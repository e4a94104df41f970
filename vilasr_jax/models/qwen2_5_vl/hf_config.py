"""Qwen2.5-VL's config.json <-> `ModelConfig`, in both layouts that exist.

flat, as published:       text sizes at the top, rope_scaling {"type": "mrope", ...}, vision_config.in_chans
nested, transformers 5:   text_config, rope_parameters, vision_config.in_channels
"""

from collections.abc import Mapping
from typing import Any

from vilasr_jax.errors import CheckpointError, ConfigError
from vilasr_jax.models.qwen2_5_vl.config import IMAGES, ModelConfig, VisionConfig

# What a vision_config may say of how pictures are cut: they are cut before a model is built.
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
    vision = _Reader(config.get("vision_config") or {}, f"{where}: vision_config")
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    refused = (
        (text.get("hidden_act", "silu") != "silu", "hidden_act other than silu"),
        (vision.values.get("hidden_act", "silu") != "silu", "vision_config.hidden_act other than silu"),
        (bool(text.get("use_sliding_window")), "use_sliding_window"),
        (rope.get("rope_type", rope.get("type", "mrope")) not in ("mrope", "default"), "scaled rope"),
    )
    for bad, what in refused:
        if bad:
            raise CheckpointError(f"{where}: {what} is not implemented")
    for name, ours in _PICTURES.items():
        if (found := vision.get(name, ours)) != ours:
            raise CheckpointError(f"{vision.where}: {name} is {found!r}, and only {ours} is implemented")
    text = _Reader(text, where)
    tied = any(place.get("tie_word_embeddings") for place in (config, config.get("text_config") or {}))
    eos = text.get("eos_token_id", 151645)
    heads, width = text.need("num_attention_heads"), text.need("hidden_size")
    fields = dict(
        vocab_size=text.need("vocab_size"),
        hidden_size=width,
        intermediate_size=text.need("intermediate_size"),
        num_layers=text.need("num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=text.get("num_key_value_heads", heads),
        head_dim=text.get("head_dim", width // heads),
        rope_theta=float(rope.get("rope_theta") or text.get("rope_theta", 1e6)),
        mrope_section=tuple(rope.get("mrope_section") or (16, 24, 24)),
        rms_norm_eps=text.get("rms_norm_eps", 1e-5),
        tie_word_embeddings=bool(tied),
        max_position_embeddings=text.get("max_position_embeddings", 32768),
        bos_token_id=text.get("bos_token_id", 151643),
        eos_token_id=eos[0] if isinstance(eos, list) and eos else eos,
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
    for name in ("image", "video", "vision_start", "vision_end"):
        if config.get(f"{name}_token_id") is not None:
            fields[f"{name}_token_id"] = config[f"{name}_token_id"]
    try:
        return ModelConfig(**{**fields, **overrides})
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error}") from error


def config_to_hf(config: ModelConfig, *, layout: str, dtype: str | None = None) -> dict[str, Any]:
    """What config.json says of `config` in a layout ("flat" or "nested"); `dtype`: of the weights."""
    v, dtype, nested = config.vision, dtype or config.param_dtype, layout == "nested"
    text = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_position_embeddings,
        "initializer_range": 0.02,
        "rms_norm_eps": config.rms_norm_eps,
        "use_cache": True,
        "use_sliding_window": False,
        "attention_dropout": 0.0,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
    }
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
        "image_token_id": config.image_token_id,
        "video_token_id": config.video_token_id,
        "vision_start_token_id": config.vision_start_token_id,
        "vision_end_token_id": config.vision_end_token_id,
        "tie_word_embeddings": config.tie_word_embeddings,
        "vision_config": vision,
    }
    if nested:
        rope = {"rope_type": "default", "rope_theta": config.rope_theta, "mrope_section": section}
        text |= {"model_type": "qwen2_5_vl_text", "rope_parameters": rope, "dtype": dtype}
        return {**common, "dtype": dtype, "text_config": text}
    rope = {"type": "mrope", "mrope_section": section}
    return {**common, **text, "rope_theta": config.rope_theta, "rope_scaling": rope, "torch_dtype": dtype}


def preprocessor_config(config: ModelConfig, min_pixels: int, max_pixels: int) -> dict[str, Any]:
    """preprocessor_config.json of `Qwen2VLImageProcessor`; pixels bound an image's area after resizing."""
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "min_pixels": min_pixels,
        "max_pixels": max_pixels,
        "size": {"shortest_edge": min_pixels, "longest_edge": max_pixels},
        "patch_size": config.vision.patch_size,
        "temporal_patch_size": config.vision.temporal_patch_size,
        "merge_size": config.vision.spatial_merge_size,
        "image_mean": list(IMAGES.mean),
        "image_std": list(IMAGES.std),
    }


class _Reader:
    """Fields of a parsed JSON object: a null counts as absent."""

    def __init__(self, values: Mapping[str, Any], where: str):
        self.values, self.where = values, where

    def get(self, name, default):
        value = self.values.get(name)
        return default if value is None else value

    def need(self, name):
        if self.values.get(name) is None:
            raise CheckpointError(f"{self.where}: {name} is missing")
        return self.values[name]
