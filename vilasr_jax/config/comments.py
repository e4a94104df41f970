"""The comments on the fields of config sections, for the help text."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import textwrap
import tokenize
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

from vilasr_jax.config.job import JobConfig


def config_keys() -> dict[str, Any]:
    """The default of each key of a config by its dotted name; a dict of values (`rl.rewards`) is one key."""
    return {key: getattr(section, field.name) for key, section, field in _fields(JobConfig())}


def key_comments() -> Iterator[tuple[str, Any, str]]:
    """(dotted key, default, comment) of each key of a config, in the order of the source."""
    comments: Callable[[Any], dict[str, str]] = functools.cache(_comments)
    for key, section, field in _fields(JobConfig()):
        choices = field.metadata.get("choices")
        notes = (comments(type(section)).get(field.name), choices and f"choices: {', '.join(choices)}")
        yield key, getattr(section, field.name), "; ".join(note for note in notes if note)


def _fields(section: Any, path: str = "") -> Iterator[tuple[str, Any, dataclasses.Field]]:
    """(dotted key, its section, its field) of each key below a section."""
    for field in dataclasses.fields(section):
        value, key = getattr(section, field.name), f"{path}.{field.name}" if path else field.name
        if dataclasses.is_dataclass(value):
            yield from _fields(value, key)
        else:
            yield key, section, field


def _comments(cls: type) -> dict[str, str]:
    """The comments of the statement that declares each field of a dataclass."""
    source = textwrap.dedent(inspect.getsource(cls))
    names = {field.name for field in dataclasses.fields(cls)}
    found: dict[str, str] = {}
    name, first = "", True  # the field of the current statement; whether the next token begins one
    for token in tokenize.generate_tokens(StringIO(source).readline):
        if token.type == tokenize.NEWLINE:
            name, first = "", True
        elif token.type == tokenize.COMMENT and name:
            found[name] = " ".join(filter(None, (found.get(name), token.string.lstrip("# "))))
        elif token.type not in (tokenize.INDENT, tokenize.DEDENT, tokenize.NL, tokenize.COMMENT):
            name = token.string if first and token.string in names else name
            first = False
    return found
