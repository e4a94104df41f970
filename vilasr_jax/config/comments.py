"""The comments on the fields of config sections, for the help text."""

from __future__ import annotations

import ast
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
    """The comment on the lines of each field that a dataclass declares."""
    source = textwrap.dedent(inspect.getsource(cls))
    by_line = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    return {
        node.target.id: " ".join(
            filter(None, map(by_line.get, range(node.lineno, (node.end_lineno or 0) + 1)))
        )
        for node in body.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
