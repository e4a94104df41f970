"""Lengths of scenes in pixels, for models whose tokens have other sides."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from vilasr_jax.models import default_family

SIDE = default_family().images.factor  # pixels a side of a token; levels are written in multiples of it
Level = TypeVar("Level")
_LENGTHS = ("side", "cell", "snap", "radius", "speed")  # fields of levels that are pixels


def fitted_level(level: Level, side: int) -> Level:
    """The level with images of as many tokens, each `side` pixels a side.

    A `snap` of 1 is a pixel and stays.
    """
    if side == SIDE:
        return level
    names = {field.name for field in dataclasses.fields(level)} & set(_LENGTHS)  # type: ignore[arg-type]
    lengths = {name: getattr(level, name) for name in names}
    changes = {name: _scaled(value, side) for name, value in lengths.items() if value not in (0, 1)}
    return dataclasses.replace(level, **changes)  # type: ignore[type-var]


def _scaled(value: Any, side: int) -> Any:
    if isinstance(value, tuple):
        return tuple(part * side / SIDE for part in value)
    return value * side // SIDE
