"""Drawing calls of a turn: one frozen record per item, in pixels of the image that it names."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Call:
    """One item of a turn: `index` is the 1-based image that it names, `label` its name."""

    tool: ClassVar[str] = ""
    points: ClassVar[bool] = False  # coordinates are pixels, not the corners of an area
    index: int
    label: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a results file: the tool's id and the fields."""
        return {"tool": self.tool, **asdict(self)}


def in_pixels(call: Call, size: tuple[int, int], units: int) -> Call:
    """The call with its coordinates (fields named x..., y...), from 0 to `units` a side, rounded to pixels.

    They are rounded here, so that no tool or style can round them in another way. The far end of a side is
    the edge of the image for an area's corner, and the last pixel for a point.

    Args:
      size: (width, height) of the image.

    >>> in_pixels(Box(1, "cup", 0, 501, 667, 1000), (448, 224), 1000)
    Box(index=1, label='cup', x1=0, y1=112, x2=299, y2=224)
    >>> in_pixels(Line(1, "way", 0, 501, 667, 1000), (448, 224), 1000)
    Line(index=1, label='way', x1=0, y1=112, x2=299, y2=223)
    """
    sides = dict(zip("xy", size, strict=True))
    changes: dict[str, Any] = {}
    for name in (field.name for field in fields(call) if field.name[0] in sides):
        written, side = getattr(call, name), sides[name[0]]
        pixel = round(written * side / units)
        changes[name] = side - 1 if call.points and pixel == side and written <= units else pixel
    return replace(call, **changes)


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
    points: ClassVar[bool] = True
    x1: float
    y1: float
    x2: float
    y2: float
