"""The tools a model may call. The two published ones are on by default; the others a config names."""

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
    """The tools of these ids, in order; `ConfigError` for an id that does not exist."""
    for id_ in ids:
        if id_ not in TOOLS:
            raise ConfigError(f"tool {id_!r} does not exist; there are {', '.join(TOOLS)}")
    return tuple(TOOLS[id_] for id_ in ids)
