"""What holds for every task family, one of the user's own among them."""

import dataclasses
import math
import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from vilasr_jax.config import ColdStartSection, JobConfig
from vilasr_jax.drawing import DrawingSettings, parse_actions
from vilasr_jax.errors import ConfigError
from vilasr_jax.evaluation.scorers import score_answer
from vilasr_jax.tasks import chance, get_family, replay
from vilasr_jax.tasks.maze import route
from vilasr_jax.tasks.multiview.questions import motion_between
from vilasr_jax.tasks.objects import COLORS
from vilasr_jax.tasks.registry import BUILT_IN
from vilasr_jax.tasks.splits import SPLITS
from vilasr_jax.training.cold_start import trace_source
from vilasr_jax.training.run import open_run

NAMES = (*BUILT_IN, "tests.tasks.count_dots")
SETTINGS = DrawingSettings(style="maze", prompt="short", max_turns=20, max_images=64)


@pytest.fixture(params=NAMES)
def family(request):
    return get_family(request.param)


def test_the_same_seed_gives_the_same_row(family):
    spec = family.spec(None, "train")
    one, two = family.row(spec, 5), family.row(spec, 5)
    assert dataclasses.replace(one, images=(), scene=None) == dataclasses.replace(two, images=(), scene=None)
    assert [image.tobytes() for image in one.images] == [image.tobytes() for image in two.images]
    assert one.meta["hash"] != family.row(spec, 6).meta["hash"]
    assert one.meta["family"] and one.meta["kind"]


def test_splits_share_no_row(family):
    seen = {}
    for split in SPLITS:
        spec = family.spec(None, split)
        for seed in range(8):
            row = family.row(spec, seed)
            assert seen.setdefault(row.meta["hash"], split) == split
    for row in family.ood_rows(None, 12):
        assert seen.get(row.meta["hash"], "ood") == "ood" and row.meta["unlike"]


def test_expert_traces_end_right(family):
    rng = random.Random(0)
    spec = family.spec(None, "train")
    for seed in range(15):
        row = family.row(spec, seed)
        assert all(width % 28 == 0 == height % 28 for image in row.images for width, height in [image.size])
        for slip in (False, True):
            trace = family.expert_trace(row, rng, slip)
            replay(trace, SETTINGS)  # refuses a turn that can't be carried out
            session = row.session(SETTINGS)
            for text in trace.turns:
                session.step(text)
            assert session.answer == row.answer
            assert all(event["strict_format"] for event in session.events)
            assert (sum(event["corrected"] for event in session.events) > 0) == slip == bool(trace.mistakes)
        for trace in (family.text_trace(row), family.direct_trace(row)):
            assert replay(trace, dataclasses.replace(SETTINGS, draw=False))[-1]["role"] == "assistant"


def test_a_task_takes_one_file(tmp_path):
    tasks = ("maze", "tests.tasks.count_dots")
    run = open_run(JobConfig(tasks=tasks, cold_start=ColdStartSection(traces=10)), tmp_path)
    rows = run.tasks.rows("test", 6)
    assert [row.meta["family"] for row in rows] == ["maze", "dots"] * 3
    assert chance(rows[::2]) == 0.25 and len({row.id for row in rows}) == 6
    source = trace_source(run.job, run.tasks, run.model)
    texts = [run.model.tokenizer.decode(source[i].ids) for i in range(len(source))]
    assert len(texts) == 10 and ["dots" in text for text in texts] == [False, True] * 5
    assert [row.meta["family"] for row in run.tasks.ood_rows(8)] == ["maze"] * 4 + ["dots"] * 4


@pytest.mark.parametrize("name", ["mazes", "no.such.module", "vilasr_jax.tasks"])
def test_wrong_names_are_told(name):
    with pytest.raises(ConfigError, match=name):
        get_family(name)


LEVELS = [(name, level) for name in ("static", "video", "multiview") for level in get_family(name).levels]


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_levels_ask_every_kind_and_replay(name, level):
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
def test_the_text_does_not_tell_the_answer(name):
    """Letters and numbers are spread evenly, and no option text is right more often than its share."""
    family = get_family(name)
    for kind in family.levels["tiny"].kinds:
        spec = family.spec(None, "train", level="tiny", kinds=(kind,))
        scenes = [family.scene(spec, seed).asked for seed in range(60)]
        answers = Counter(asked.answer for asked in scenes)
        expected = len(scenes) / len(answers)
        assert len(answers) >= 3
        assert sum((n - expected) ** 2 / expected for n in answers.values()) < 20  # chi-square, 3 degrees
        if scenes[0].options and "." in scenes[0].options[0]:
            offered = Counter(option[3:] for asked in scenes for option in asked.options)
            right = Counter(asked.options["ABCD".index(asked.answer)][3:] for asked in scenes)
            share = len(scenes) / sum(offered.values())
            for text, n in offered.items():
                assert abs(right[text] - share * n) < 4.5 * (share * (1 - share) * n) ** 0.5, (kind, text)


@pytest.mark.parametrize("name", ["static", "video", "multiview"])
def test_the_question_needs_its_pictures(name):
    """With one question text there are many answers: what is asked does not tell them."""
    family = get_family(name)
    spec = family.spec(None, "train", level="tiny")
    answers = {}
    for seed in range(60):
        asked = family.scene(spec, seed).asked
        answers.setdefault((asked.question, asked.options), set()).add(asked.answer)
        assert set(asked.answer) <= set("ABCD1234")
    repeated = [found for found in answers.values() if len(found) > 1]
    assert len(repeated) >= 1


@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_a_look_at_a_scene_asks_for_its_drawings(name, level):
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


@pytest.mark.parametrize(("grid", "moves"), [(4, (2, 4)), (5, (4, 6)), (7, (6, 9))])
def test_routes(grid, moves):
    family = get_family("maze")
    spec = family.spec(None, "train", kinds=("route",), grid=grid, moves=moves)
    answers = Counter()
    for seed in range(60):
        row = family.row(spec, seed)
        scene, maze = row.scene, row.scene.maze
        answers[row.answer] += 1
        for letter, listed in scene.lists.items():
            path = maze.path(listed)
            clean = all(a != b for a, b in pairwise(path))
            assert (clean and path[-1] == scene.goal) == (letter == row.answer)
            assert maze.path(listed, ignore_walls=True)[-1] == scene.goal  # only the walls tell them apart
        for slip in (False, True):
            session = row.session(SETTINGS)
            for text in family.expert_trace(row, random.Random(seed), slip).turns:
                session.step(text)
            assert session.answer == row.answer
            assert sum(event["corrected"] for event in session.events) == slip
    assert max(answers.values()) < 30
    both = family.spec(None, "train", kinds=("end", "route"))
    assert {family.row(both, seed).meta["kind"] for seed in range(12)} == {"end", "route"}


def test_quickstart_tokens_do_not_know_of_routes():
    """Mazes without routes keep the vocabulary they had."""
    assert not set(route.PHRASES) & set(get_family("maze").phrases_for(JobConfig().maze))
