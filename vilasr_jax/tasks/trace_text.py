"""The pieces of an expert's turns, in the published format; each is one token of the tiny tokenizer."""

from collections.abc import Sequence
from typing import Any

THINK = "<think> "
GOOD, WRONG = "good. ", "wrong. "  # what a turn says of the last drawing
LINES = '</think> Action: Path Tracer\n```json\n[{"index": '
BOXES = '</think> Action: Object Mapper\n```json\n[{"index": '
START, END = ', "start_point_2d": [', '], "end_point_2d": ['
BOX = ', "bbox_2d": ['
LABEL = '], "label": "'
NEXT = '"}, {"index": '
CLOSE = '"}]\n```'
# The same with each label first.
NAMED_LINES = '</think> Action: Path Tracer\n```json\n[{"label": "'
NAMED_BOXES = '</think> Action: Object Mapper\n```json\n[{"label": "'
INDEX = '", "index": '
NAMED_NEXT = ']}, {"label": "'
NAMED_CLOSE = "]}]\n```"
ANSWER = ". </think> Action: Answer\n<answer> "
CLOSE_ANSWER = " </answer>"
PIECES = (
    THINK,
    GOOD,
    WRONG,
    LABEL,
    CLOSE,
    ANSWER,
    CLOSE_ANSWER,
    ", ",
    "[",
    " [",
    ": [",
    "]",
    "], ",
    "]. ",
    "\n",
)
LINE_PIECES = (LINES, START, END)
BOX_PIECES = (BOXES, BOX, NEXT)
NAMED_PIECES = (NAMED_LINES, NAMED_BOXES, INDEX, NAMED_NEXT, NAMED_CLOSE)

Corners = tuple[int, int, int, int]


def said(role: str, text: str) -> dict[str, Any]:
    """A message of text alone."""
    return {"role": role, "content": [{"type": "text", "text": text}]}


def line_turn(think: str, lines: Sequence[tuple[int, Corners, str | int]], named_first: bool = False) -> str:
    """A turn that thinks and draws lines, each (image index, (x1, y1, x2, y2), label).

    With `named_first` a label comes before its line; the published order has it last, and JSON has none.
    """
    places = [(i, f"{START}{x1}, {y1}{END}{x2}, {y2}", label) for i, (x1, y1, x2, y2), label in lines]
    return _turn(think, NAMED_LINES if named_first else LINES, places, named_first)


def box_turn(think: str, boxes: Sequence[tuple[int, Corners, str | int]], named_first: bool = False) -> str:
    """A turn that thinks and draws boxes, each (image index, (x1, y1, x2, y2), label); see `line_turn`."""
    places = [(i, f"{BOX}{x1}, {y1}, {x2}, {y2}", label) for i, (x1, y1, x2, y2), label in boxes]
    return _turn(think, NAMED_BOXES if named_first else BOXES, places, named_first)


def _turn(think: str, start: str, places: Sequence[tuple[int, str, str | int]], named_first: bool) -> str:
    if named_first:
        items = NAMED_NEXT.join(f"{label}{INDEX}{index}{place}" for index, place, label in places)
        return f"{THINK}{think}{start}{items}{NAMED_CLOSE}"
    items = NEXT.join(f"{index}{place}{LABEL}{label}" for index, place, label in places)
    return f"{THINK}{think}{start}{items}{CLOSE}"


def answer_turn(think: str, answer: str) -> str:
    """The last turn; `think` has no full stop of its own."""
    return f"{THINK}{think}{ANSWER}{answer}{CLOSE_ANSWER}"


def point(x: int, y: int) -> str:
    """A place as text."""
    return f"[{x}, {y}]"
