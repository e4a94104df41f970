"""The tools a model may call. The two published ones are enabled by default; a config enables others."""

import importlib
from collections.abc import Sequence

from vilasr_jax.drawing.tools.base import ItemError as ItemError
from vilasr_jax.drawing.tools.base import Tool as Tool
from vilasr_jax.drawing.tools.erase import Erase
from vilasr_jax.drawing.tools.marks import PointMark, TextMark
from vilasr_jax.drawing.tools.object_mapper import ObjectMapper
from vilasr_jax.drawing.tools.path_tracer import PathTracer
from vilasr_jax.drawing.tools.select_frame import SelectFrame
from vilasr_jax.drawing.tools.zoom import Zoom
from vilasr_jax.errors import ConfigError

TOOLS: dict[str, Tool] = {
    tool.id: tool
    for tool in (ObjectMapper(), PathTracer(), PointMark(), TextMark(), Zoom(), Erase(), SelectFrame())
}
PUBLISHED = ("object_mapper", "path_tracer")


def get_tools(ids: Sequence[str]) -> tuple[Tool, ...]:
    """The tools of these ids, in order; `ConfigError` for an id that does not exist.

    An id with a dot is a module of the user's own that holds a `TOOL`: one file adds a tool.
    """
    return tuple(TOOLS[id_] if id_ in TOOLS else _own(id_) for id_ in ids)


def _own(name: str) -> Tool:
    if "." not in name:
        raise ConfigError(f"tool {name!r} does not exist; there are {', '.join(TOOLS)}")
    try:
        tool = importlib.import_module(name).TOOL
    except Exception as error:  # whatever the user's module raises
        raise ConfigError(f"tool {name!r}: {type(error).__name__}: {error}") from error
    if not isinstance(tool, Tool) or TOOLS.setdefault(tool.id, tool) is not tool:
        raise ConfigError(f"tool {name!r}: TOOL must be a Tool with an id of its own")
    return tool
