"""The small models of benchmarks, of any family."""

from typing import Any

from vilasr_jax.errors import ConfigError
from vilasr_jax.models import ModelConfig, by_model_type, model_types, preset, published_sizes


def small_presets() -> list[str]:
    """Names of the presets that are no published size, of all families."""
    names = [name for kind in model_types() for name in by_model_type(kind).presets]
    return [name for name in names if name not in published_sizes()]


def small_preset(name: str, **fields: Any) -> ModelConfig:
    """The small preset of a family with other fields, the same of every family.

    Raises:
      ConfigError: there is no such preset, or it is a published size.
    """
    config = preset(name, **fields)
    if name in published_sizes():
        raise ConfigError(
            f"--size={name}: small models are compared here ({', '.join(small_presets())}); published sizes "
            "are measured by `vilasr bench steps` and `vilasr bench real`"
        )
    return config
