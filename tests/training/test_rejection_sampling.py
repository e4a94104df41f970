"""The published rules of what is kept, test by test."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from vilasr_jax.rollout import Trajectory
from vilasr_jax.training.rejection_sampling import filter_trajectories, on_centres


def line(x1, y1, x2, y2) -> dict:
    return {"tool": "path_tracer", "index": 1, "label": "1", "x1": x1, "y1": y1, "x2": x2, "y2": y2}


def turn(*calls, error=None) -> dict:
    return {"text": "", "calls": list(calls), "error": error, "drawn": [2] if calls else [], "corrected": 0}


def sampled(*turns, size=(84, 84), data_type="maze", stop="answer", accuracy=1.0, **meta) -> Trajectory:
    row = {
        "id": "r",
        "question": "?",
        "answer": "A",
        "question_type": "multiple choice",
        "options": [],
        "data_type": data_type,
        "meta": meta,
    }
    none = np.zeros(0, np.int32)
    reward = {"accuracy": accuracy, "format": 0.0, "total": accuracy / 2}
    return Trajectory(
        "r/0",
        none,
        none.astype(bool),
        none.astype(np.float32),
        [Image.new("RGB", size)],
        list(turns),
        stop,
        1,
        1,
        row,
        reward,
    )


OURS = {"cell": 28, "grid_size": 3}
GOOD = turn(line(14, 14, 42, 14))


def test_the_cold_start_rule():
    some = [
        sampled(GOOD, GOOD, turn(), **OURS),
        sampled(GOOD, turn(), **OURS),  # two rounds
        sampled(GOOD, turn(error="item 1: odd"), turn(), **OURS),  # not carried out
        sampled(GOOD, GOOD, turn(), accuracy=0.9, **OURS),  # nearly right
        sampled(GOOD, GOOD, turn(), stop="turn_limit", **OURS),
        sampled(turn(line(0, 0, 42, 14)), GOOD, turn(), **OURS),  # a corner is 20 px from the centre
        sampled(turn(line(0, 0, 42, 14)), GOOD, turn(), data_type="vqa"),  # no maze: lines are free
    ]
    funnel, kept = filter_trajectories(some, "cold_start")
    assert kept == [some[0], some[6]]
    assert funnel == {"sampled": 7, "parsed": 6, "right": 5, "executed": 4, "rounds": 3, "kept": 2}
    assert filter_trajectories([], "cold_start")[0]["kept"] == 0


@pytest.mark.parametrize(
    ("x", "y", "near"),
    [
        (14, 14, True),
        (28, 14, True),
        (29, 14, True),
        (24, 24, False),
        (0, 14, True),
        (-1, 14, False),
        (70, 70, True),
        (84, 70, True),
        (85, 70, False),
    ],
)
def test_half_a_cell_in_our_mazes(x, y, near):
    assert on_centres(sampled(turn(line(14, 14, x, y)), **OURS)) == near


def test_half_a_cell_in_published_mazes():
    # A 616 px figure: margins 77 left, 61 right, 73 top, 67 bottom; 5 cells of 95.6 x 95.2 px.
    def point(x, y):
        return on_centres(sampled(turn(line(77 + 47.8, 73 + 47.6, x, y)), size=(616, 616), grid_size=5))

    assert point(77 + 95.6 * 4.5, 73 + 95.2 * 4.5)
    assert point(77 + 95.6 * 1.5 + 47, 73 + 95.2 * 0.5)  # 47 px from a centre: within 47.7
    assert not point(77 + 95.6 * 1.5 + 40, 73 + 95.2 * 0.5 + 40)
    assert not point(20, 20)  # in the margin


def test_other_drawings_and_odd_grids_do_not_matter():
    box = {**line(0, 0, 5, 5), "tool": "object_mapper"}
    assert on_centres(sampled(turn(box), **OURS))
    for grid in (None, "5", 0):
        assert on_centres(sampled(turn(line(0, 0, 5, 5)), grid_size=grid))


def test_the_reflective_rule_needs_a_correction_and_the_format():
    plain = sampled(GOOD, GOOD, turn(), **OURS)
    corrected = dataclasses.replace(plain, turns=[{**GOOD, "corrected": 1}, turn()])
    formed = dataclasses.replace(corrected, reward={**corrected.reward, "format": 1.0})
    funnel, kept = filter_trajectories([plain, corrected, formed], "reflective")
    assert kept == [formed]
    assert funnel == {"sampled": 3, "parsed": 3, "right": 3, "reflective": 2, "kept": 1}
