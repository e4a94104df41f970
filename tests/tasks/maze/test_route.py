"""Questions about routes through a maze."""

import random
from collections import Counter
from itertools import pairwise

import pytest

from vilasr_jax.config import JobConfig
from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.tasks import get_family
from vilasr_jax.tasks.maze import route

SETTINGS = DrawingSettings(style="maze", prompt="short", max_turns=20, max_images=64)


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
            assert maze.path(listed, ignore_walls=True)[-1] == scene.goal  # only the walls distinguish them
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
    """Mazes without routes have the same vocabulary as before."""
    assert not set(route.PHRASES) & set(get_family("maze").phrases_for(JobConfig().maze))
