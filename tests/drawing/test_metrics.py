"""Drawing metrics on a conversation whose figures are known."""

import pytest
from PIL import Image

from vilasr_jax.drawing import DrawingSession
from vilasr_jax.drawing.metrics import box_iou, drawing_metrics, line_distance


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
    truth = {"cup": (0, 0, 20, 20), "way": (0, 0, 30, 40), "lamp": (1, 1, 5, 5)}
    assert drawing_metrics(session.events, truth) == {
        "turns": 4,
        "drawings": 3,
        "corrections": 1,
        "repeats": 0,
        "invalid": 1,
        "calls/object_mapper": 4,
        "calls/path_tracer": 1,
        "box_iou": pytest.approx(0.25),
        "line_distance": 2,
    }
    assert drawing_metrics([]) == {"turns": 0, "drawings": 0, "corrections": 0, "repeats": 0, "invalid": 0}


def test_overlap():
    assert box_iou((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert box_iou((0, 0, 1, 1), (2, 2, 3, 3)) == 0 == box_iou((0, 0, 0, 0), (0, 0, 0, 0))
    assert line_distance((0, 0, 3, 4), (0, 0, 0, 0)) == 2.5
