"""Task families by name. A name with a dot is a module of the user's own that holds a `FAMILY`."""

from __future__ import annotations

import importlib

from vilasr_jax.errors import ConfigError
from vilasr_jax.tasks.family import Family

BUILT_IN = {name: f"vilasr_jax.tasks.{name}.family" for name in ("maze", "static", "video", "multiview")}


def get_family(name: str) -> Family:
    """The family of this name; ConfigError when there is none."""
    if name not in BUILT_IN and "." not in name:
        raise ConfigError(
            f"no task {name!r}; there are {', '.join(BUILT_IN)}, or give a module that holds a FAMILY "
            "(my_package.my_task)"
        )
    try:
        family = importlib.import_module(BUILT_IN.get(name, name)).FAMILY
    except Exception as error:  # a module of the user's own can raise anything
        raise ConfigError(f"task {name!r}: {type(error).__name__}: {error}") from error
    if not isinstance(family, Family):
        raise ConfigError(f"task {name!r}: its FAMILY is no vilasr_jax.tasks.Family")
    return family
