"""The tools a model may call. The two published ones are on by default; the others a config names."""

from collections.abc import Sequence

from vilasr_jax.drawing.tools.base import ItemError as ItemError
from vilasr_jax.drawing.tools.base import Tool as Tool
from vilasr_jax.drawing.tools.object_mapper import ObjectMapper as ObjectMapper
from vilasr_jax.drawing.tools.path_tracer import PathTracer as PathTracer
from vilasr_jax.errors import ConfigError

TOOLS: dict[str, Tool] = {tool.id: tool for tool in (ObjectMapper(), PathTracer())}
PUBLISHED = ("object_mapper", "path_tracer")


def get_tools(ids: Sequence[str]) -> tuple[Tool, ...]:
    """The tools of these ids, in order; `ConfigError` for an id that does not exist."""
    for id_ in ids:
        if id_ not in TOOLS:
            raise ConfigError(f"tool {id_!r} does not exist; there are {', '.join(TOOLS)}")
    return tuple(TOOLS[id_] for id_ in ids)
