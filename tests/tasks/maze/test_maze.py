"""Mazes: determinism, walls that matter, balanced letters, disjoint splits, pictures that show it all."""

import random
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from vilasr_jax.drawing import DrawingSettings, parse_actions
from vilasr_jax.errors import ConfigError, DataError
from vilasr_jax.tasks import Trace, get_family, replay
from vilasr_jax.tasks.maze import (
    KINDS,
    LOOKS,
    MazeSpec,
    corpus,
    direct_trace,
    draw_maze,
    expert_trace,
    make_maze,
    make_maze_row,
    perception_example,
    template_phrases,
    text_trace,
)
from vilasr_jax.tasks.maze.maze import STEPS
from vilasr_jax.tasks.maze.picture import centre
from vilasr_jax.tasks.splits import SPLITS
from vilasr_jax.tasks.tokenizer_phrases import message_texts

SETTINGS = DrawingSettings(style="maze", prompt="short", max_turns=20)
SPEC = MazeSpec(grid=5, moves=(4, 6))


def walk(maze) -> tuple:
    """The end of the path, by hand."""
    x, y = maze.start
    for move in maze.moves:
        dx, dy = STEPS[move]
        nx, ny = x + dx, y + dy
        pair = tuple(sorted([(x, y), (nx, ny)]))
        if 0 <= nx < maze.grid and 0 <= ny < maze.grid and pair not in maze.walls:
            x, y = nx, ny
    return x, y


def test_rows_are_deterministic():
    one, two = make_maze_row(SPEC, 7), make_maze_row(SPEC, 7)
    assert one.question == two.question and one.meta == two.meta
    assert one.images[0].tobytes() == two.images[0].tobytes()
    assert one.meta["hash"] != make_maze_row(SPEC, 8).meta["hash"]


@pytest.mark.parametrize("spec", [MazeSpec(grid=3, moves=(2, 4)), SPEC, MazeSpec(grid=7, moves=(6, 9))])
def test_answers_are_right_and_walls_matter(spec):
    rows = [make_maze_row(spec, seed) for seed in range(200)]
    for row in rows:
        maze = row.scene
        assert maze.letters[row.answer] == walk(maze) != maze.start
        assert len(set(maze.letters.values())) == 4 and maze.start not in maze.letters.values()
        assert spec.moves[0] <= len(maze.moves) <= spec.moves[1]
        if row.meta["decisive"]:
            assert maze.path(ignore_walls=True)[-1] in {*maze.letters.values(), maze.start}
    assert np.mean([row.meta["decisive"] for row in rows]) == pytest.approx(0.9, abs=0.07)
    assert np.mean([row.meta["blocked_moves"] > 0 for row in rows]) > 0.8
    assert max(Counter(row.answer for row in rows).values()) < 0.35 * len(rows)


def test_splits_are_disjoint():
    by_split = {
        split: {make_maze(spec, seed).content_hash for seed in range(60)}
        for split in SPLITS
        for spec in [MazeSpec(grid=3, moves=(2, 3), split=split)]
    }
    seen = [h for hashes in by_split.values() for h in hashes]
    assert len(seen) == len(set(seen))
    assert sorted(family for families in SPLITS.values() for family in families) == list(range(16))


def test_rows_of_a_set_differ():
    rows = list(get_family("maze").rows(MazeSpec(grid=3, moves=(2, 3)), 100))
    assert len({row.meta["hash"] for row in rows}) == 100


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("grid", [3, 6])
def test_picture(look, grid):
    row = make_maze_row(MazeSpec(grid=grid, look=look), 3)
    maze, pixels = row.scene, np.asarray(row.images[0])
    assert pixels.shape == (28 * grid, 28 * grid, 3)
    for x in range(grid):
        for y in range(grid):
            for move, (dx, dy) in STEPS.items():
                cx, cy = centre((x, y), 28)
                inside = pixels[
                    cy + 13 * dy - (dy < 0), cx + 13 * dx - (dx < 0)
                ]  # outermost pixel of this side
                is_wall = tuple(inside) == LOOKS[look].wall
                assert is_wall == maze.blocked((x, y), move), (x, y, move)
    for cell, color in zip(maze.letters.values(), LOOKS[look].letters, strict=True):
        x, y = cell[0] * 28, cell[1] * 28
        assert (pixels[y : y + 28, x : x + 28] == color).all(-1).sum() > 40
    x, y = centre(maze.start, 28)
    assert tuple(pixels[y, x]) == LOOKS[look].start


@pytest.mark.parametrize("labels", ["move", "line"])
@pytest.mark.parametrize("spec", [MazeSpec(grid=3, moves=(2, 4)), SPEC])
def test_every_trace_replays_to_the_right_answer(spec, labels):
    rng = random.Random(0)
    for seed in range(150):
        row = make_maze_row(spec, seed)
        for slip in (False, True):
            trace = expert_trace(row, rng, slip, labels)
            messages = replay(trace, SETTINGS)
            assert [m["role"] for m in messages] == ["system", *["user", "assistant"] * len(trace.turns)]
            session = row.session(SETTINGS)
            for text in trace.turns:
                session.step(text)
            assert session.answer == row.answer
            assert all(event["strict_format"] for event in session.events)
            assert sum(event["corrected"] for event in session.events) == slip
            opened = len(row.scene.moves) - row.meta["blocked_moves"]
            assert len(trace.turns) == opened + 1 + slip
            if not slip:
                ends = [row.scene.start] + [
                    ((call["x2"] - 14) // 28, (call["y2"] - 14) // 28)
                    for event in session.events
                    for call in event["calls"]
                ]
                path = row.scene.path()
                assert ends == [path[0]] + [b for a, b in pairwise(path) if a != b]


def test_a_slip_is_judged_wrong_and_drawn_again():
    for seed in range(50):
        trace = expert_trace(make_maze_row(SPEC, seed), random.Random(seed), slip=True)
        said = [text.startswith("<think> wrong. ") for text in trace.turns]
        assert sum(said) == 1
        at = said.index(True)
        assert trace.mistakes == (at - 1,)
        bad, good = (parse_actions(trace.turns[k]).calls[0] for k in (at - 1, at))
        assert bad.label == good.label and (bad.x1, bad.y1) == (good.x1, good.y1)
        assert (bad.x2, bad.y2) != (good.x2, good.y2)


def test_controls_answer_in_one_turn_without_tools():
    text_only = DrawingSettings(prompt="short", draw=False)
    for seed in range(30):
        row = make_maze_row(SPEC, seed)
        for trace in (text_trace(row), direct_trace(row)):
            replay(trace, text_only)
            turn = parse_actions(trace.turns[0], ())
            assert len(trace.turns) == 1 and turn.answer == row.answer and turn.strict_format


def test_replay_refuses_bad_traces():
    row = make_maze_row(SPEC, 0)
    good = expert_trace(row, random.Random(0)).turns
    with pytest.raises(DataError, match=r"turn 1: item 1: there is no image 9"):
        replay(Trace(row, (good[0].replace('"index": 1', '"index": 9'), *good[1:])), SETTINGS)
    with pytest.raises(DataError, match="ends without an answer"):
        replay(Trace(row, good[:-1]), SETTINGS)
    with pytest.raises(DataError, match="has already ended"):
        replay(Trace(row, (*good, good[-1])), SETTINGS)


@pytest.mark.parametrize("kind", KINDS)
def test_perception(kind):
    spec = MazeSpec(grid=4, moves=(2, 4), split="perception")
    for seed in range(30):
        messages = perception_example(spec, seed, SETTINGS, (kind,))
        assert [m["role"] for m in messages] == ["system", "user", "assistant"]
        answer = messages[2]["content"][0]["text"]
        image = messages[1]["content"][0]["image"]
        ring = (np.asarray(image) == (255, 0, 200)).all(-1)
        if kind in ("ring", "ring_moves"):
            y, x = (int(axis.min() + axis.max() + 1) // 2 for axis in ring.nonzero())
            assert answer.startswith(f"[{x}, {y}]")
        if kind == "ring_moves":
            maze = make_maze(spec, seed)
            for verdict in answer.split("]. ")[1].rstrip(". ").split(". "):
                move = verdict.split()[1].rstrip(":")
                assert maze.blocked((x // 28, y // 28), move) == verdict.endswith("wall")
        assert answer == perception_example(spec, seed, SETTINGS, (kind,))[2]["content"][0]["text"]


def test_phrases_and_corpus():
    phrases = template_phrases(SETTINGS)
    assert len(phrases) == len(set(phrases)) and all(phrases)
    texts = list(corpus(SPEC, SETTINGS, rows=8))
    joined = "\n".join(texts)
    for number in (*range(14, 224, 28), *range(84, 252, 28), *range(1, 43)):
        assert str(number) in texts
    for phrase in phrases:
        if not phrase.startswith(("system", "user", "assistant", "\nerror")):
            assert phrase in joined, phrase
    trace = expert_trace(make_maze_row(SPEC, 0), random.Random(0))
    rest = trace.turns[1]
    for phrase in phrases:
        rest = rest.replace(phrase, "|")
    assert all(part.isdecimal() or not part for part in rest.split("|")), rest
    assert all(isinstance(text, str) for text in message_texts(replay(trace, SETTINGS)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"grid": 2}, "maze grid is 2"),
        ({"cell": 20}, "maze cell is 20"),
        ({"cell": 14}, "must be a multiple of 28"),
        ({"moves": (5, 4)}, "maze moves are"),
        ({"look": "neon"}, "maze look 'neon' does not exist"),
        ({"split": "dev"}, "maze split 'dev' does not exist"),
        ({"wall_density": 0.9}, "maze wall_density is 0.9"),
    ],
)
def test_wrong_specs(changes, said):
    with pytest.raises(ConfigError, match=said):
        MazeSpec(**changes)


def test_look_changes_the_picture_only():
    plain, night = make_maze(SPEC, 4), make_maze(MazeSpec(grid=5, moves=(4, 6), look="night"), 4)
    assert plain == night
    assert draw_maze(plain, 28, LOOKS["plain"]).tobytes() != draw_maze(plain, 28, LOOKS["night"]).tobytes()
