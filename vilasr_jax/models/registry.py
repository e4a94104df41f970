"""Model families by the `model_type` of their config.json, and presets by name."""

from __future__ import annotations

import importlib
from typing import Any

from vilasr_jax.errors import ConfigError
from vilasr_jax.models.family import ModelConfig, ModelFamily
from vilasr_jax.models.qwen2_5_vl.family import FAMILY
from vilasr_jax.models.qwen3_vl.family import FAMILY as QWEN3_VL

DEFAULT_PRESET = "tiny"
_FAMILIES: dict[str, ModelFamily] = {}


def register(family: ModelFamily) -> ModelFamily:
    """Adds a family; one of the same `model_type` is replaced.

    Raises:
      ConfigError: another family has a preset of the same name, or names the same kernel another kind.
    """
    for other in _FAMILIES.values():
        if other.model_type == family.model_type:
            continue
        if shared := sorted(set(other.presets) & set(family.presets)):
            raise ConfigError(f"{family.model_type}: preset {shared[0]!r} is that of {other.model_type}")
        for name, kind in family.kernels.items():
            if other.kernels.get(name, kind) != kind:
                raise ConfigError(
                    f"{family.model_type}: kernel {name!r} is {kind}, but {other.kernels[name]} in "
                    f"{other.model_type}"
                )
    _FAMILIES[family.model_type] = family
    return family


def model_types() -> tuple[str, ...]:
    """The names of all families."""
    return tuple(_FAMILIES)


def by_model_type(name: str) -> ModelFamily:
    """The family of a name.

    Raises:
      ConfigError: there is none.
    """
    if name not in _FAMILIES:
        raise ConfigError(f"model_type {name!r} does not exist; choose one of {sorted(_FAMILIES)}")
    return _FAMILIES[name]


def default_family() -> ModelFamily:
    """The family of conversations and images that name none."""
    return FAMILY


def family_of(config: Any) -> ModelFamily:
    """The family of a model config."""
    return by_model_type(config.model_type)


def kernel_kinds() -> dict[str, str]:
    """The kind of every family's kernels, a field of `sharding.Sharding`, by the name of their module."""
    return {name: kind for family in _FAMILIES.values() for name, kind in family.kernels.items()}


def token_sides() -> tuple[int, ...]:
    """Pixels a side of a token of each family, the smallest first."""
    return tuple(sorted({family.images.factor for family in _FAMILIES.values()}))


def published_sizes() -> tuple[str, ...]:
    """Names of the presets for which published weights exist."""
    return tuple(name for family in _FAMILIES.values() for name in family.published_sizes)


def is_published_size(config: ModelConfig) -> bool:
    """Whether published weights exist of a model of this family, width and depth."""
    family = family_of(config)
    sizes = [family.presets[name] for name in family.published_sizes]
    return any((s.hidden_size, s.num_layers) == (config.hidden_size, config.num_layers) for s in sizes)


def preset(name: str, **overrides: Any) -> Any:
    """The config of a published size ("7b", "qwen3vl_8b") or of a small CPU model ("tiny", "qwen3vl_tiny").

    A name with a dot is a module of the user's own that holds a `CONFIG`.

    Args:
      name: preset name, of any family; "": `DEFAULT_PRESET`.
      **overrides: fields of the family's config; `vision` may be a dict of fields of its vision config.

    Raises:
      ConfigError: an unknown preset or field, or inconsistent sizes.
    """
    name = name or DEFAULT_PRESET
    presets = {name: config for family in _FAMILIES.values() for name, config in family.presets.items()}
    if name in presets:
        config = presets[name]
    elif "." in name:
        config = _imported(name)
    else:
        raise ConfigError(f"model preset {name!r} does not exist; choose one of {sorted(presets)}")
    return family_of(config).override(config, **overrides)


def _imported(name: str) -> Any:
    try:
        config = importlib.import_module(name).CONFIG
    except Exception as error:  # whatever the user's module raises
        raise ConfigError(f"model preset {name!r}: {type(error).__name__}: {error}") from error
    if not isinstance(config, tuple(family.config_class for family in _FAMILIES.values())):
        raise ConfigError(f"model preset {name!r}: its CONFIG isn't a ModelConfig")
    return config


for _family in (FAMILY, QWEN3_VL):
    register(_family)
