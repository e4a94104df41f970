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
ANSWER = ". </think> Action: Answer\n<answer> "
CLOSE_ANSWER = " </answer>"
PIECES = (
    THINK, GOOD, WRONG, LABEL, CLOSE, ANSWER, CLOSE_ANSWER, ", ", "[", " [", ": [", "]", "], ", "]. ", "\n",
)  # fmt: skip
LINE_PIECES = (LINES, START, END)
BOX_PIECES = (BOXES, BOX, NEXT)

Corners = tuple[int, int, int, int]


def said(role: str, text: str) -> dict[str, Any]:
    """A message of text alone."""
    return {"role": role, "content": [{"type": "text", "text": text}]}


def line_turn(think: str, lines: Sequence[tuple[int, Corners, str | int]]) -> str:
    """A turn that thinks and draws lines, each (image index, (x1, y1, x2, y2), label)."""
    items = [
        f"{index}{START}{x1}, {y1}{END}{x2}, {y2}{LABEL}{label}" for index, (x1, y1, x2, y2), label in lines
    ]
    return f"{THINK}{think}{LINES}{NEXT.join(items)}{CLOSE}"


def box_turn(think: str, boxes: Sequence[tuple[int, Corners, str | int]]) -> str:
    """A turn that thinks and draws boxes, each (image index, (x1, y1, x2, y2), label)."""
    items = [f"{index}{BOX}{x1}, {y1}, {x2}, {y2}{LABEL}{label}" for index, (x1, y1, x2, y2), label in boxes]
    return f"{THINK}{think}{BOXES}{NEXT.join(items)}{CLOSE}"


def answer_turn(think: str, answer: str) -> str:
    """The last turn; `think` has no full stop of its own."""
    return f"{THINK}{think}{ANSWER}{answer}{CLOSE_ANSWER}"


def point(x: int, y: int) -> str:
    """A place as text."""
    return f"[{x}, {y}]"
