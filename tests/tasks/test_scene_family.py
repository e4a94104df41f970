"""Families of scenes: questions, answers, drawings and perception rows."""

import math
import random
from collections import Counter

import numpy as np
import pytest

from vilasr_jax.drawing import DrawingSettings, parse_actions
from vilasr_jax.errors import ConfigError
from vilasr_jax.evaluation.scorers import score_answer
from vilasr_jax.tasks import get_family
from vilasr_jax.tasks.multiview.questions import motion_between
from vilasr_jax.tasks.objects import COLORS

SETTINGS = DrawingSettings(style="maze", prompt="short", max_turns=20, max_images=64)


LEVELS = [(name, level) for name in ("static", "video", "multiview") for level in get_family(name).levels]


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_levels_have_every_kind_and_replay(name, level):
    family = get_family(name)
    kinds = family.levels[level].kinds
    many = len(kinds) + 1
    for number, kind in enumerate((*kinds, *kinds[: many - len(kinds)])):
        spec = family.spec(None, "train", level=level, kinds=(kind,))
        row = family.row(spec, number)
        assert row.meta["kind"] == kind and row.meta["level"] == level
        side = family.levels[level].side
        assert {image.size for image in row.images} == {(side, side)}
        for slip in (False, True):
            session = row.session(SETTINGS)
            for text in family.expert_trace(row, random.Random(number), slip).turns:
                session.step(text)
            assert session.answer == row.answer and not any(event["error"] for event in session.events)


@pytest.mark.parametrize("name", ["static", "video", "multiview"])
def test_the_text_does_not_reveal_the_answer(name):
    """Letters and numbers are spread evenly, and no option text is right more often than chance."""
    family = get_family(name)
    for kind in family.levels["tiny"].kinds:
        spec = family.spec(None, "train", level="tiny", kinds=(kind,))
        scenes = [family.scene(spec, seed).question for seed in range(60)]
        answers = Counter(question.answer for question in scenes)
        expected = len(scenes) / len(answers)
        assert len(answers) >= 3
        assert sum((n - expected) ** 2 / expected for n in answers.values()) < 20  # chi-square, 3 degrees
        if scenes[0].options and "." in scenes[0].options[0]:
            offered = Counter(option[3:] for question in scenes for option in question.options)
            right = Counter(question.options["ABCD".index(question.answer)][3:] for question in scenes)
            chance = len(scenes) / sum(offered.values())
            for text, n in offered.items():
                assert abs(right[text] - chance * n) < 4.5 * (chance * (1 - chance) * n) ** 0.5, (kind, text)


@pytest.mark.parametrize("name", ["static", "video", "multiview"])
def test_the_question_needs_its_pictures(name):
    """With one question text there are many answers: the text alone does not determine them."""
    family = get_family(name)
    spec = family.spec(None, "train", level="tiny")
    answers = {}
    for seed in range(60):
        question = family.scene(spec, seed).question
        answers.setdefault((question.question, question.options), set()).add(question.answer)
        assert set(question.answer) <= set("ABCD1234")
    repeated = [found for found in answers.values() if len(found) > 1]
    assert len(repeated) >= 1


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_perception_requests_a_scenes_drawings(name, level):
    """For the boxes of each image (at most four) and for lines between objects; the answers are right."""
    family = get_family(name)
    spec = family.spec(None, "perception", level=level)
    for seed in range(4):
        scene = family.scene(spec, seed)
        messages = family.perception(spec, seed, SETTINGS)[1:]
        boxed, lines = [], 0
        for question, answer in zip(messages[::2], messages[1::2], strict=True):
            assert (question["role"], answer["role"]) == ("user", "assistant")
            wanted = question["content"][-1]["text"].rpartition("\n")[2]
            index = int(wanted.rpartition("image ")[2].rstrip("."))
            places = {(mark.label, mark.corners) for mark in scene.places if mark.index == index}
            calls = parse_actions(answer["content"][0]["text"]).calls
            assert all(call.index == index for call in calls)
            if wanted.startswith("Draw lines"):
                lines += 1
                middles = {label: ((x1 + x2) // 2, (y1 + y2) // 2) for label, (x1, y1, x2, y2) in places}
                start = wanted.partition("from ")[2].partition(" to ")[0]
                for call in calls:
                    assert (call.x1, call.y1, call.x2, call.y2) == (*middles[start], *middles[call.label])
                continue
            boxed.append(index)
            assert {(call.label, (call.x1, call.y1, call.x2, call.y2)) for call in calls} == places
            labels = list(dict.fromkeys(call.label for call in calls))
            assert "everything" in wanted or ", ".join(labels) in wanted
        assert len(boxed) == len(set(boxed)) == min(len(scene.sizes), 4)
        assert lines <= family.lines


def test_boxes_hold_their_objects():
    """Each static object's colour is inside its box, and nowhere else."""
    family = get_family("static")
    for level in ("tiny", "easy"):
        spec = family.spec(None, "train", level=level, kinds=("furthest",))
        for seed in range(12):
            row = family.row(spec, seed)
            pixels = np.asarray(row.images[0])
            for mark in row.scene.places:
                where = (pixels == COLORS[mark.label.split()[0]]).all(-1)
                x1, y1, x2, y2 = mark.corners
                assert where[y1:y2, x1:x2].sum() > 30
                if level == "tiny":
                    assert where.sum() == where[y1:y2, x1:x2].sum()


def test_motion_is_scored_right_as_published():
    family = get_family("multiview")
    spec = family.spec(None, "train", kinds=("motion",))
    for seed in range(12):
        row = family.row(spec, seed)
        assert score_answer(row.answer, row.answer, row.question_type) == 1
        one, two = row.scene.drawn.cameras
        again = one.moved(*(motion_between(one, two)))
        assert math.dist((again.x, again.y, again.z), (two.x, two.y, two.z)) < 0.1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"level": "silly"}, "no level 'silly'"),
        ({"kinds": ("up",)}, "no kind of question at level 'easy' 'up'"),
        ({"look": "x"}, "no look 'x'"),
    ],
)
def test_wrong_scene_specs(changes, said):
    with pytest.raises(ConfigError, match=said):
        get_family("static").spec(None, "train", **changes)
