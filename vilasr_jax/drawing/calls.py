"""Drawing calls of a turn: one frozen record per item, in pixels of the image that it names."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Call:
    """One item of a turn: `index` is the 1-based image that it names, `label` its name."""

    tool: ClassVar[str] = ""
    index: int
    label: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a results file: the tool's id and the fields."""
        return {"tool": self.tool, **asdict(self)}


def scaled(call: Call, x: float, y: float) -> Call:
    """The call with its coordinates (fields named x..., y...) multiplied by `x` and `y`.

    >>> scaled(Box(1, "cup", 0, 500, 250, 1000), 0.5, 0.25)
    Box(index=1, label='cup', x1=0.0, y1=125.0, x2=125.0, y2=250.0)
    """
    factors = {"x": x, "y": y}
    names = [field.name for field in fields(call) if field.name[0] in factors]
    return replace(call, **{name: getattr(call, name) * factors[name[0]] for name in names})


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
