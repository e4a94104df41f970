"""Reading and writing of a job's configuration: config files, `ConfigDict`s, dicts and JSON."""

from __future__ import annotations

import dataclasses
import runpy
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections

from vilasr_jax.config.job import JobConfig
from vilasr_jax.config.renamed import new_config_file, new_key, with_new_keys
from vilasr_jax.errors import ConfigError, did_you_mean


def config_files() -> dict[str, Path]:
    """The config files that come with the project, by name: `configs/` of a clone, or its copy in a wheel."""
    package = Path(__file__).parent.parent
    folder = next(path for path in (package / "configs", package.parent / "configs") if path.is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def split_config_path(path: str) -> tuple[str, list[str]]:
    """The file of "FILE.py:WORDS", and the words for its `get_config`, if there are any.

    A file that comes with the project is found from any folder, as `maze_tiny` or `configs/maze_tiny.py`.

    Raises:
      ConfigError: there is no such file; the new name where it had another one once.
    """
    file, colon, words = path.partition(":")
    if not Path(file).is_file():
        files, name = config_files(), file.removeprefix("configs/").removesuffix(".py")
        if name not in files:
            if new := new_config_file(file, words):
                raise ConfigError(f"{file} is now in vilasr.py; give --config={new}")
            raise ConfigError(f"{file}: no such config file{did_you_mean(name, files)}")
        file = str(files[name])
    return file, [words] if colon else []


def read_config(path: str | Path, changes: Mapping[str, Any] | None = None) -> JobConfig:
    """The job of a config file, with some keys changed, as in `{"rl.steps": 9}`.

    Args:
      path: the file, with words for its `get_config` after a colon where it accepts some.
      changes: new values by dotted key.

    Raises:
      ConfigError: there is no such file or key, or a value has another type.
    """
    file, words = split_config_path(str(path))
    config = runpy.run_path(file)["get_config"](*words).to_dict()
    for key, value in (changes or {}).items():
        if new := new_key(key):
            raise ConfigError(f"config.{key}: no such key; it is now {new}")
        *sections, name = key.split(".")
        place = config
        for section in sections:
            place = place.get(section)
            if not isinstance(place, dict):
                raise ConfigError(f"config.{key}: there is no section {section!r}")
        place[name] = value
    return from_config_dict(config)


def to_dict(job: Any) -> dict:
    """A config dataclass as plain nested dicts (tuples stay tuples)."""
    return {
        f.name: to_dict(v) if dataclasses.is_dataclass(v := getattr(job, f.name)) else v
        for f in dataclasses.fields(job)
    }


def flatten(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested dicts as one, by dotted key.

    >>> flatten({"rl": {"steps": 9}, "seed": 0})
    {'rl.steps': 9, 'seed': 0}
    """
    items: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{path}.{key}" if path else key
        items |= flatten(value, name) if isinstance(value, dict) else {name: value}
    return items


def differences(job: JobConfig) -> dict[str, tuple[Any, Any]]:
    """Every key of a job: its value, and the default's (None for a key that the defaults do not have)."""
    defaults = flatten(to_dict(JobConfig()))
    return {key: (value, defaults.get(key)) for key, value in flatten(to_dict(job)).items()}


def to_config_dict(job: JobConfig) -> ml_collections.ConfigDict:
    """The locked `ConfigDict` that a config file returns."""
    return ml_collections.ConfigDict(to_dict(job)).lock()


def from_config_dict(config: Any) -> JobConfig:
    """The job of a `ConfigDict`, or of nested dicts, as files in workdirs hold them.

    Files of an earlier version are read by their old keys; a `ConfigDict` must have today's.

    Raises:
      ConfigError: a key that does not exist, or a value of another type.
    """
    if isinstance(config, ml_collections.ConfigDict):
        return _read(JobConfig, config.to_dict(), "config")
    return _read(JobConfig, with_new_keys(config) if isinstance(config, dict) else config, "config")


def _read(cls: type, values: Any, path: str) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys and values, got {values!r}")
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            new = new_key(f"{path}.{key}")
            now = f"; it is now {new}" if new else did_you_mean(key, hints)
            raise ConfigError(f"{path}.{key}: no such key{now}")
    return cls(**{key: _value(hints[key], value, f"{path}.{key}") for key, value in values.items()})


def _value(kind: Any, value: Any, path: str) -> Any:
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _read(kind, value, path)
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{path}: expected a list, got {value!r}")
        return tuple(_value(item, v, f"{path}[{i}]") for i, v in enumerate(value))
    if typing.get_origin(kind) is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: expected keys and values, got {value!r}")
        item = typing.get_args(kind)[1]
        return {str(key): _value(item, v, f"{path}.{key}") for key, v in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"{path}: expected {kind.__name__}, got {value!r}")
    return value
