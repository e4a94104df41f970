"""Base class of drawing tools, and the readers of item fields that they have in common."""

import math
import re
from typing import Any, ClassVar

from vilasr_jax.drawing.calls import Call

MAX_LABEL = 64  # characters; a longer label is cut
MAX_COORDINATE = 1e6  # pixels; anything further out is not a place in an image
_NUMBERS = re.compile(r"[-+]?\d{1,9}(?:\.\d{1,9})?")


class ItemError(Exception):
    """An item that can't be used; the text is short and meant for the model. Never leaves `drawing`."""


class Tool:
    """One tool: its description, its JSON items, and how an item is read, applied and drawn.

    A tool is one class in one file: a module of one's own that ends with `TOOL = MyTool()`, named in
    `config.drawing.tools`, or a file under `drawing/tools/`, listed in `tools/__init__.py`.
    """

    id: ClassVar[str]  # what settings and records call it
    name: ClassVar[str]  # the word after "Action:" in a turn
    keys: ClassVar[tuple[str, ...]]  # JSON keys of an item besides "index" and "label"
    purpose: ClassVar[str]  # one sentence for the published prompt
    example: ClassVar[str]  # the JSON of one item, as the prompt shows it
    function: ClassVar[str] = ""  # its name as a function, where that is not the id

    def owns(self, item: dict) -> bool:
        """Whether any of this tool's own keys is in the item."""
        return any(key in item for key in self.keys)

    def complete(self, item: dict) -> bool:
        """Whether the item has every key of the published format."""
        return "label" in item and all(key in item for key in self.keys)

    def read(self, item: dict) -> Call:
        """The call that an item describes; raises `ItemError` when it can't be read."""
        raise NotImplementedError

    def apply(self, call: Call, overlay: Any) -> None:
        """Changes the overlay; `ItemError` when the call does not fit the images there are."""
        overlay.put(call)

    def draw(self, canvas: Any, call: Call, newest: bool) -> None:
        """Draws the call on a `render.Canvas`."""


def read_index(item: dict) -> int:
    """The 1-based image index of an item."""
    value = item.get("index")
    if value is None:
        raise ItemError("index is missing")
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 10:
        value = int(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < MAX_COORDINATE:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < MAX_COORDINATE:
        raise ItemError("index must be the number of an image")
    return value


def read_label(item: dict) -> str:
    """The label of an item: printable, at most `MAX_LABEL` characters."""
    value = item.get("label")
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ItemError("label is missing")
    return clean_label(value)


def clean_label(text: str) -> str:
    """Text without control, direction or line-break characters, cut to `MAX_LABEL`."""
    return "".join(c for c in text[: 4 * MAX_LABEL] if c.isprintable())[:MAX_LABEL].strip()


def read_numbers(item: dict, key: str, count: int) -> tuple[float, ...]:
    """`count` finite numbers under `key`; also from strings ("12, 30") and from pairs in pairs."""
    value = item.get(key)
    if isinstance(value, str):
        value = _NUMBERS.findall(value[:200])
    if isinstance(value, list) and value and all(isinstance(part, list) for part in value[:8]):
        value = [number for part in value[:8] for number in part[:8]]
    if not isinstance(value, list) or len(value) != count:
        raise ItemError(f"{key} needs {count} numbers")
    return tuple(_number(part, key) for part in value)


def _number(value: Any, key: str) -> float:
    if isinstance(value, str):
        match = _NUMBERS.fullmatch(value.strip()[:24])
        value = float(match.group()) if match else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ItemError(f"{key} has something that is not a number")
    if not math.isfinite(value) or abs(value) > MAX_COORDINATE:
        raise ItemError(f"{key} has a number out of range")
    return int(value) if value == int(value) else float(value)
