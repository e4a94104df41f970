"""What the config.json files of families with this decoder have in common, read and written."""

from collections.abc import Mapping
from typing import Any

from vilasr_jax.errors import CheckpointError, ConfigError
from vilasr_jax.models.images import ImageSpec
from vilasr_jax.models.transformer.config import TransformerConfig

_TOKENS = ("image", "video", "vision_start", "vision_end")


class Reader:
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

    def check(self, ours: Mapping[str, Any]) -> None:
        """Raises CheckpointError for a value that is not the only one that is implemented."""
        for name, value in ours.items():
            if (found := self.get(name, value)) != value:
                raise CheckpointError(f"{self.where}: {name} is {found!r}, and only {value} is implemented")


def check_text(text: Mapping[str, Any], where: str) -> None:
    """Raises CheckpointError for choices of a text config that the decoder does not implement."""
    rope = _rope(text)
    refused = (
        (text.get("hidden_act", "silu") != "silu", "hidden_act other than silu"),
        (bool(text.get("use_sliding_window")), "use_sliding_window"),
        (rope.get("rope_type", rope.get("type", "mrope")) not in ("mrope", "default"), "scaled rope"),
    )
    for bad, what in refused:
        if bad:
            raise CheckpointError(f"{where}: {what} is not implemented")


def _rope(text: Mapping[str, Any]) -> Mapping[str, Any]:
    return text.get("rope_parameters") or text.get("rope_scaling") or {}


def text_fields(
    config: Mapping[str, Any],
    where: str,
    *,
    section: tuple[int, int, int] = (16, 24, 24),
    eps: float = 1e-5,
    theta: float = 1e6,
) -> dict[str, Any]:
    """Fields of a `TransformerConfig` but for `vision`, from a parsed config.json of either layout.

    Args:
      config: the parsed file.
      where: what to call it in errors.
      section, eps, theta: of a file that does not state them.

    Raises:
      CheckpointError: a missing size.
    """
    values = config.get("text_config") or config
    text, rope = Reader(values, where), _rope(values)
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
        rope_theta=float(rope.get("rope_theta") or text.get("rope_theta", theta)),
        mrope_section=tuple(rope.get("mrope_section") or section),
        rms_norm_eps=text.get("rms_norm_eps", eps),
        tie_word_embeddings=bool(tied),
        max_position_embeddings=text.get("max_position_embeddings", 32768),
        bos_token_id=text.get("bos_token_id", 151643),
        eos_token_id=eos[0] if isinstance(eos, list) and eos else eos,
    )
    for name in _TOKENS:
        if config.get(f"{name}_token_id") is not None:
            fields[f"{name}_token_id"] = config[f"{name}_token_id"]
    return fields


def build(config_class: type, fields: Mapping[str, Any], where: str) -> Any:
    """A config of these fields; CheckpointError where they do not fit."""
    try:
        return config_class(**fields)
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error}") from error


def text_to_hf(config: TransformerConfig, **choices: Any) -> dict[str, Any]:
    """What a text config says of `config`, but for rope and dtype; `choices` are the family's own."""
    return {
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
        **choices,
        "attention_dropout": 0.0,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
    }


def token_ids_to_hf(config: TransformerConfig) -> dict[str, Any]:
    """The ids of special tokens, and whether the token table is the head."""
    ids = {f"{name}_token_id": getattr(config, f"{name}_token_id") for name in _TOKENS}
    return {**ids, "tie_word_embeddings": config.tie_word_embeddings}


def preprocessor_config(
    config: TransformerConfig, images: ImageSpec, processor_class: str, min_pixels: int, max_pixels: int
) -> dict[str, Any]:
    """preprocessor_config.json of `Qwen2VLImageProcessor`; pixels bound an image's area after resizing."""
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": processor_class,
        "min_pixels": min_pixels,
        "max_pixels": max_pixels,
        "size": {"shortest_edge": min_pixels, "longest_edge": max_pixels},
        "patch_size": config.vision.patch_size,
        "temporal_patch_size": config.vision.temporal_patch_size,
        "merge_size": config.vision.spatial_merge_size,
        "image_mean": list(images.mean),
        "image_std": list(images.std),
    }
