"""Calls: what a turn asks for, one frozen record an item, in pixels of the image it names."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Call:
    """One item of a turn: `index` is the 1-based image it names, `label` what it is called."""

    tool: ClassVar[str] = ""
    index: int
    label: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a results file: the tool's id and the fields."""
        return {"tool": self.tool, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Box(Call):
    """A box by its corners, `x1 <= x2` and `y1 <= y2`."""

    tool: ClassVar[str] = "object_mapper"
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True)
class Line(Call):
    """A line from `(x1, y1)` to `(x2, y2)`."""

    tool: ClassVar[str] = "path_tracer"
    x1: float
    y1: float
    x2: float
    y2: float
