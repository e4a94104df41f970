"""Metrics of the drawings of one conversation, from `DrawingSession.events`."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

Corners = Sequence[float]  # x1, y1, x2, y2
_NONE = (0, 0, 0, 0)


def drawing_metrics(
    events: Sequence[Mapping[str, Any]], truth: Sequence[Mapping[str, Any]] = ()
) -> dict[str, float]:
    """Counts of one conversation, and how well its last drawings fit the truth where the task has it.

    Args:
      events: what the session noted, one per turn.
      truth: the right boxes and lines, as `Call.to_dict` gives them, `index` being a given image. A drawing
        is compared with that of its tool, label and image.

    Returns:
      `turns`, `drawings` (drawn images), `corrections`, `repeats`, `invalid` (turns with an error),
      `calls/<tool>` for each tool used; with `truth` also, of its boxes, `box_iou` (mean, 0 for one never
      drawn), and of its lines `lines_drawn` (a fraction) and `line_distance` (mean distance of the end
      points of those drawn, in pixels).
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


def metric_sums(metrics: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """(sum, count) of each metric over conversations: calls count all, the others those that have them."""
    sums: dict[str, list[float]] = {}
    for one in metrics:
        for name, value in one.items():
            sums.setdefault(name, []).append(value)
    return {
        name: (sum(values), float(len(metrics if name.startswith("calls/") else values)))
        for name, values in sorted(sums.items())
    }


def _fit(events: Sequence[Mapping[str, Any]], truth: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    last = {
        (call["tool"], base, call["label"]): _corners(call)
        for event in events
        if event["drawn"]
        for call, base in zip(event["calls"], event["bases"], strict=True)
        if "x2" in call
    }
    right = {(call["tool"], call["index"], call["label"]): _corners(call) for call in truth}
    boxes = [key for key in right if key[0] == "object_mapper"]
    lines = [key for key in right if key[0] == "path_tracer"]
    figures = {}
    if boxes:
        figures["box_iou"] = sum(box_iou(last.get(key, _NONE), right[key]) for key in boxes) / len(boxes)
    if lines:
        misses = [line_distance(last[key], right[key]) for key in lines if key in last]
        figures["lines_drawn"] = len(misses) / len(lines)
        figures |= {"line_distance": sum(misses) / len(misses)} if misses else {}
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
