"""What holds for every task family, one of the user's own among them."""

import dataclasses
import random

import pytest

from vilasr_jax.config import ColdStartSection, JobConfig, SceneSection
from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.errors import ConfigError
from vilasr_jax.tasks import chance, get_family, replay
from vilasr_jax.tasks.registry import BUILT_IN
from vilasr_jax.tasks.splits import SPLITS
from vilasr_jax.training.examples import trace_source
from vilasr_jax.training.run import open_run

NAMES = (*BUILT_IN, "tests.tasks.count_dots")
SCENES = ("static", "video", "multiview")


SETTINGS = DrawingSettings(style="maze", prompt="short", max_turns=20, max_images=64)


@pytest.fixture(params=NAMES)
def family(request):
    return get_family(request.param)


def test_expert_traces_of_all_kinds_fit_relative_coordinates(family):
    """An answer in pixels stays; nothing in our traces reads as a coordinate of no image."""
    spec, settings = family.spec(None, "train"), dataclasses.replace(SETTINGS, coordinates=1000, max_turns=40)
    rows = {}
    for seed in range(60):
        row = family.row(spec, seed)
        rows.setdefault(row.meta["kind"], []).append(row)
    for row in (row for some in rows.values() for row in some[:6]):
        trace = family.expert_trace(row, random.Random(row.id), False)
        last = replay(trace, settings)[-1]["content"][0]["text"]
        assert f"<answer> {row.answer} </answer>" in last


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("level", ["tiny", "tiny_wide", "easy", "medium", "hard"])
def test_scenes_are_scaled_to_the_tokens_of_a_model(name, level):
    """Images of as many tokens, the same questions, and drawings that end right, slips too."""
    family, side = get_family(name), 32
    assert (
        family.fitted(SceneSection(level), 28)
        == family.fitted(SceneSection(level), 14)
        == SceneSection(level)
    )
    usual, spec = (family.spec(family.fitted(SceneSection(level), s), "train") for s in (28, side))
    settings = dataclasses.replace(SETTINGS, coordinates=1000, max_turns=40)
    for seed in range(2):
        ours, theirs = family.row(usual, seed), family.row(spec, seed)
        width = ours.images[0].width
        assert {image.size for image in theirs.images} == {(width // 28 * side,) * 2}
        again = family.scene(dataclasses.replace(spec, look="night"), seed)
        assert again.content == family.scene(spec, seed).content
        for slip in (False, True):
            trace = family.expert_trace(theirs, random.Random(seed), slip)
            last = replay(trace, settings)[-1]["content"][0]["text"]
            assert f"<answer> {theirs.answer} </answer>" in last
        if level.startswith("tiny") and name in ("static", "video"):
            boxes = [c for call in family.truth(theirs) for c in (call["x1"], call["y1"])]
            assert all(value % (side // 2) == 0 for value in boxes)


def test_the_same_seed_gives_the_same_row(family):
    spec = family.spec(None, "train")
    one, two = family.row(spec, 5), family.row(spec, 5)
    assert dataclasses.replace(one, images=(), scene=None) == dataclasses.replace(two, images=(), scene=None)
    assert [image.tobytes() for image in one.images] == [image.tobytes() for image in two.images]
    assert one.meta["hash"] != family.row(spec, 6).meta["hash"]
    assert one.meta["family"] and one.meta["kind"]


def test_no_row_is_in_two_splits(family):
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


def test_a_task_is_one_file(tmp_path):
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
def test_wrong_names_are_errors(name):
    with pytest.raises(ConfigError, match=name):
        get_family(name)
