"""Limits of a configuration's values, declared with each field and checked by one walk over all of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from vilasr_jax.errors import ConfigError


def setting(
    default: Any, *, at_least: float | None = 0, above: float | None = None, choices: Sequence[str] = ()
) -> Any:
    """A dataclass field with limits; those of a tuple or dict hold for each of its values.

    A field without this has the default limits: numbers are finite and not negative.

    Args:
      default: as in `dataclasses.field`.
      at_least: the smallest number; None: negative ones have a meaning.
      above: numbers must be larger than this.
      choices: the words that exist.
    """
    limits = {"at_least": at_least, "above": above, "choices": tuple(choices)}
    return dataclasses.field(default=default, metadata=limits)


def check_section(section: Any, path: str = "config") -> None:
    """Checks each value of a section against its field's limits, then the rules between its fields.

    A section states such rules in a method `check(path)`.

    Args:
      section: a config dataclass; sections inside it are checked, too.
      path: its dotted key, for error messages.

    Raises:
      ConfigError: naming the key, its value and what is allowed.
    """
    for field in dataclasses.fields(section):
        value, key = getattr(section, field.name), f"{path}.{field.name}"
        if dataclasses.is_dataclass(value):
            check_section(value, key)
            continue
        many = value if isinstance(value, tuple) else value.values() if isinstance(value, dict) else (value,)
        for one in many:
            _check_value(key, value, one, **field.metadata)
    if hasattr(section, "check"):
        section.check(path)


def _check_value(
    key: str,
    value: Any,
    one: Any,
    at_least: float | None = 0,
    above: float | None = None,
    choices: tuple[str, ...] = (),
) -> None:
    if choices and one not in choices:
        raise ConfigError(f"{key}={one!r}: choose one of {', '.join(choices)}")
    if not isinstance(one, (int, float)) or isinstance(one, bool):
        return
    if not math.isfinite(one):
        raise ConfigError(f"{key}={value!r} must be a finite number")
    if at_least == 0 and one < 0:
        raise ConfigError(f"{key}={value!r} must not be negative")
    if at_least is not None and one < at_least:
        raise ConfigError(f"{key}={value!r} must be at least {at_least}")
    if above is not None and one <= above:
        raise ConfigError(f"{key}={value!r} must be more than {above}")
