"""Figures about how one conversation drew, from `DrawingSession.events`."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

Corners = Sequence[float]  # x1, y1, x2, y2


def drawing_metrics(
    events: Sequence[Mapping[str, Any]], truth: Mapping[str, Corners] | None = None
) -> dict[str, float]:
    """Counts of one conversation, and how well the last drawing of each label fits where a task knows it.

    Args:
      events: what the session noted, one a turn.
      truth: the right box or line (x1, y1, x2, y2) of each label that has one.

    Returns:
      `turns`, `drawings` (drawn images), `corrections`, `repeats`, `invalid` (turns with an error),
      `calls/<tool>` for each tool used; with `truth` also `box_iou` (mean over the known labels, 0 for one
      never drawn) and `line_distance` (mean distance of end points in pixels over the known lines drawn).
    """
    counts = Counter(call["tool"] for event in events for call in event["calls"])
    figures = {
        "turns": float(len(events)),
        "drawings": float(sum(len(event["drawn"]) for event in events)),
        "corrections": float(sum(event["corrected"] for event in events)),
        "repeats": float(sum(event.get("repeated", 0) for event in events)),
        "invalid": float(sum(event["error"] is not None for event in events)),
        **{f"calls/{tool}": float(count) for tool, count in sorted(counts.items())},
    }
    return figures | (_fit(events, truth) if truth else {})


def _fit(events: Sequence[Mapping[str, Any]], truth: Mapping[str, Corners]) -> dict[str, float]:
    drawn = [event for event in events if event["drawn"]]
    last = {call["label"]: call for event in drawn for call in event["calls"] if "x2" in call}
    lines, boxes = [], []
    for label, corners in truth.items():
        call = last.get(label)
        if call is not None and call["tool"] == "path_tracer":
            lines.append(line_distance(_corners(call), corners))
        else:
            boxes.append(box_iou(_corners(call), corners) if call else 0.0)
    figures = {}
    if boxes:
        figures["box_iou"] = sum(boxes) / len(boxes)
    if lines:
        figures["line_distance"] = sum(lines) / len(lines)
    return figures


def _corners(call: Mapping[str, Any]) -> tuple[float, ...]:
    return call["x1"], call["y1"], call["x2"], call["y2"]


def box_iou(a: Corners, b: Corners) -> float:
    """Intersection over union of two boxes; 0 when neither has an area.

    >>> box_iou((0, 0, 2, 2), (1, 0, 3, 2))
    0.3333333333333333
    """
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - wide * high
    return wide * high / union if union > 0 else 0.0


def line_distance(a: Corners, b: Corners) -> float:
    """Mean distance of the two lines' start points and end points, in pixels."""
    return (math.hypot(a[0] - b[0], a[1] - b[1]) + math.hypot(a[2] - b[2], a[3] - b[3])) / 2
