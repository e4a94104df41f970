"""Perception rows: single-turn questions about a maze image, drawn on by the same renderer as rollouts.

They teach a small model to see (marks, ring, walls) with dense answers before it learns to trace.
"""

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from vilasr_jax.drawing import DrawingSession, DrawingSettings, Line, get_style, render
from vilasr_jax.tasks.maze.generate import make_maze
from vilasr_jax.tasks.maze.maze import STEPS, Cell, Maze
from vilasr_jax.tasks.maze.picture import centre, draw_maze
from vilasr_jax.tasks.maze.spec import LOOKS, MazeSpec
from vilasr_jax.tasks.maze.traces import OPEN, WALL
from vilasr_jax.tasks.trace_text import point, said

MARKS = "Where are the marks?"
RING = "Where is the ring?"
RING_MOVES = "Which moves from the ring are open? "
CELL_MOVES = "Which moves are open? "
KINDS = ("marks", "ring", "ring_moves", "cell_moves")
_CHECKS = 6  # moves of a question of kind "cell_moves"


def perception_example(
    spec: MazeSpec, seed: int, settings: DrawingSettings, kinds: tuple[str, ...] = KINDS
) -> list[dict[str, Any]]:
    """System, user and assistant messages of one perception question; the kind is drawn from `kinds`."""
    rng = random.Random(f"perception {seed}")
    maze = make_maze(spec, seed)
    image = draw_maze(maze, spec.cell, LOOKS[spec.look])
    kind = rng.choice(kinds)
    path = _prefix(maze, rng, at_least=0 if kind in ("marks", "cell_moves") else 1)
    lines = [
        Line(1, str(number), *centre(here, spec.cell), *centre(there, spec.cell))
        for number, (here, there) in enumerate(pairwise(path), 1)
    ]
    if lines:
        image = render(image, lines, get_style(settings.style))

    def place(cell: Cell) -> str:
        """The centre of a cell, as the model writes it."""
        return point(*settings.written(centre(cell, spec.cell), image.size))

    question, answer = _question(kind, maze, path[-1], place, rng)
    session = DrawingSession([image], question, question_type="free-form", settings=settings)
    return [*session.messages, said("assistant", answer)]


def _prefix(maze: Maze, rng: random.Random, at_least: int) -> list[Cell]:
    """The first cells of the path, without the blocked moves; sometimes with a last step that is wrong."""
    cells = list(dict.fromkeys(maze.path()))
    cells = cells[: rng.randint(1 + at_least, len(cells))]
    if len(cells) > 1 and rng.random() < 0.3:
        wrong = {maze.step(cells[-2], step, ignore_walls=True) for step in STEPS} - {cells[-2]}
        cells[-1] = rng.choice(sorted(wrong))
    return cells


def _question(
    kind: str, maze: Maze, end: Cell, place: Callable[[Cell], str], rng: random.Random
) -> tuple[str, str]:
    if kind == "marks":
        marks = {"start": maze.start} | maze.letters
        return MARKS, ", ".join(f"{name}: {place(cell)}" for name, cell in marks.items())
    if kind == "ring":
        letter = next((letter for letter, cell in maze.letters.items() if cell == end), "none")
        return RING, f"{place(end)}, {letter}"
    if kind == "ring_moves":
        checks = [(end, step) for step in rng.sample(sorted(STEPS), len(STEPS))]
        listed = ", ".join(f"{number} {step}" for number, (_, step) in enumerate(checks, 1))
        return RING_MOVES + listed, f"{place(end)}. {_verdicts(maze, checks)}"
    checks = [_random_check(maze, rng) for _ in range(_CHECKS)]
    listed = ", ".join(f"{number} {place(at)} {step}" for number, (at, step) in enumerate(checks, 1))
    return CELL_MOVES + listed, _verdicts(maze, checks)


def _random_check(maze: Maze, rng: random.Random) -> tuple[Cell, str]:
    """A cell and a direction; as often a wall as open, as far as the maze has both."""
    want = rng.random() < 0.5
    for _ in range(8):
        at, step = (rng.randrange(maze.grid), rng.randrange(maze.grid)), rng.choice(sorted(STEPS))
        if maze.blocked(at, step) == want:
            break
    return at, step


def _verdicts(maze: Maze, checks: list[tuple[Cell, str]]) -> str:
    """In the words of the traces: "1 up: wall. 2 left: open. "."""
    return "".join(
        f"{number} {step}{WALL if maze.blocked(at, step) else OPEN}"
        for number, (at, step) in enumerate(checks, 1)
    )
