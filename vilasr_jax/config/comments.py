"""The comments on the fields of config sections, for the help text."""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
import tokenize
from collections.abc import Iterator
from io import StringIO
from typing import Any

from vilasr_jax.config.job import JobConfig


def key_comments(section: Any = None, path: str = "") -> Iterator[tuple[str, Any, str]]:
    """(dotted key, default, comment) of each key of a config, in the order of the source.

    Args:
      section: a config dataclass with its default values; None: a full job.
      path: its dotted key.
    """
    section = JobConfig() if section is None else section
    comments = _comments(type(section))
    for field in dataclasses.fields(section):
        value, key = getattr(section, field.name), f"{path}.{field.name}" if path else field.name
        if dataclasses.is_dataclass(value):
            yield from key_comments(value, key)
        else:
            choices = field.metadata.get("choices")
            notes = (comments.get(field.name), choices and f"choices: {', '.join(choices)}")
            yield key, value, "; ".join(note for note in notes if note)


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
