"""Drawing metrics on a conversation whose figures are known."""

import dataclasses
import random
import re

import pytest
from PIL import Image

from vilasr_jax.drawing import Box, DrawingSession, DrawingSettings, Line
from vilasr_jax.drawing.metrics import box_iou, drawing_metrics, line_distance, metric_sums
from vilasr_jax.tasks.registry import get_family


def test_counts_and_fit():
    session = DrawingSession([Image.new("RGB", (140, 140), "white")], "?")
    other = '{"index": 1, "bbox_2d": [0, 0, 9, 9], "label": "x"}'
    for items in (
        '{"index": 1, "bbox_2d": [0, 0, 20, 20], "label": "cup"}, ' + other,
        '{"index": 1, "bbox_2d": [0, 0, 20, 10], "label": "cup"}',
        '{"index": 7, "bbox_2d": [0, 0, 20, 10], "label": "cup"}',
        '{"index": 1, "start_point_2d": [0, 0], "end_point_2d": [30, 44], "label": "way"}',
    ):
        session.step(f"<think> a </think> Action: Object Mapper\n```json\n[{items}]\n```")
    truth = [
        Box(1, "cup", 0, 0, 20, 20).to_dict(),
        Line(1, "way", 0, 0, 30, 40).to_dict(),
        Box(1, "lamp", 1, 1, 5, 5).to_dict(),
        Line(1, "other way", 1, 1, 5, 5).to_dict(),
    ]
    assert drawing_metrics(session.events, truth) == {
        "turns": 4,
        "drawings": 3,
        "corrections": 1,
        "repeats": 0,
        "invalid": 1,
        "calls/object_mapper": 4,
        "calls/path_tracer": 1,
        "box_iou": pytest.approx(0.25),
        "lines_drawn": 0.5,
        "line_distance": 2,
    }
    assert drawing_metrics([]) == {"turns": 0, "drawings": 0, "corrections": 0, "repeats": 0, "invalid": 0}


def test_overlap():
    assert box_iou((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert box_iou((0, 0, 1, 1), (2, 2, 3, 3)) == 0 == box_iou((0, 0, 0, 0), (0, 0, 0, 0))
    assert line_distance((0, 0, 3, 4), (0, 0, 0, 0)) == 2.5


def test_one_label_on_two_frames_is_two_things():
    session = DrawingSession([Image.new("RGB", (140, 140), "white")] * 2, "?", video=True)
    items = [f'{{"index": {k}, "bbox_2d": [0, 0, {20 * k}, 20], "label": "car"}}' for k in (1, 2)]
    moved = '{"index": 4, "bbox_2d": [0, 0, 40, 10], "label": "car"}'  # image 4 is frame 2 with its box
    for text in (", ".join(items), moved):
        session.step(f"<think> a </think> Action: Object Mapper\n```json\n[{text}]\n```")
    truth = [Box(k, "car", 0, 0, 20 * k, 20).to_dict() for k in (1, 2)]
    assert drawing_metrics(session.events, truth)["box_iou"] == pytest.approx(0.75)


def test_sums_count_calls_everywhere_and_others_where_present():
    sums = metric_sums([{"turns": 2.0, "calls/zoom": 3.0}, {"turns": 4.0, "box_iou": 0.5}])
    assert sums == {"turns": (6.0, 2.0), "calls/zoom": (3.0, 2.0), "box_iou": (0.5, 1.0)}
    assert metric_sums([]) == {}


def moved(text: str, shift: int) -> str:
    """A turn with every line `shift` pixels further right."""
    return re.sub(r'_point_2d": \[(\d+)', lambda m: f'_point_2d": [{int(m[1]) + shift}', text)


def test_a_task_knows_what_is_right():
    """An expert's maze fits the task's truth; the same lines one cell off do not."""
    family = get_family("maze")
    row = family.row(family.spec(None, "train"), 3)
    turns, truth = family.expert_trace(row, random.Random(1), slip=True).turns, family.truth(row)
    assert truth and all(call["tool"] == "path_tracer" for call in truth)
    assert family.truth(dataclasses.replace(row, scene=None)) == []
    for shift, distance in ((0, 0), (28, 28)):
        session = row.session(DrawingSettings(prompt="short"))
        for text in turns:
            session.step(moved(text, shift))
        figures = drawing_metrics(session.events, truth)
        assert figures["lines_drawn"] == 1 and figures["line_distance"] == pytest.approx(distance)
        assert figures["corrections"] == 1 and figures["invalid"] == 0
