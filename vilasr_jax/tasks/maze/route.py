"""Route planning: which of four lists of moves leads to the goal without running into a wall?

The lists are the same moves in other orders: without the walls all of them would reach the goal.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from itertools import pairwise, permutations

from vilasr_jax.tasks.maze.generate import random_walls
from vilasr_jax.tasks.maze.maze import LETTERS, STEPS, Cell, Maze
from vilasr_jax.tasks.maze.picture import centre, draw_maze
from vilasr_jax.tasks.maze.spec import LOOKS, MazeSpec
from vilasr_jax.tasks.maze.traces import OPEN, WALL
from vilasr_jax.tasks.rows import Row, Trace
from vilasr_jax.tasks.splits import first_in_split
from vilasr_jax.tasks.trace_text import GOOD, WRONG, answer_turn, line_turn

QUESTION = "Which list of moves leads from the green start to the red goal without running into a wall?"
LIST_IS = "The list is "
PHRASES = (
    f"\n{QUESTION}",
    LIST_IS,
    *(f"{letter}{mark}" for letter in LETTERS for mark in (". ", ": ")),
    *STEPS,
)


@dataclass(frozen=True)
class Route:
    """A maze whose moves lead to the goal, and the lists on offer; `lists[letter]` is one."""

    maze: Maze
    lists: dict[str, tuple[str, ...]]

    @property
    def goal(self) -> Cell:
        return self.maze.path()[-1]

    @property
    def answer(self) -> str:
        return next(letter for letter, moves in self.lists.items() if moves == self.maze.moves)


def make_route_row(spec: MazeSpec, seed: int) -> Row:
    """The row of a seed; `scene` is the `Route`."""
    key = (spec.grid, tuple(spec.moves), spec.wall_density, spec.split, seed)
    rng = random.Random(f"route {key!r}")
    route = first_in_split(lambda: _propose(spec, rng), lambda route: route.maze.content_hash, spec.split)
    return Row(
        id=f"maze-{spec.split}-{spec.grid}x{spec.grid}-{spec.look}-route-{seed}",
        question=QUESTION,
        answer=route.answer,
        question_type="multiple choice",
        options=tuple(f"{letter}. {', '.join(moves)}" for letter, moves in route.lists.items()),
        images=(draw_maze(route.maze, spec.cell, LOOKS[spec.look], route.goal),),
        data_type="maze",
        meta={
            "family": "maze",
            "kind": "route",
            "cell": spec.cell,
            "grid_size": spec.grid,
            "hash": route.maze.content_hash,
        },
        scene=route,
    )


def route_trace(row: Row, rng: random.Random, slip: bool = False) -> Trace:
    """Tries the lists in order up to the first wall, then draws the right one, a line a turn."""
    route: Route = row.scene
    path, cell = route.maze.path(), row.meta["cell"]
    judged = "".join(_tried(route, letter) for letter in LETTERS[: LETTERS.index(route.answer) + 1])
    slip_at = rng.randrange(len(path) - 1) if slip else -1
    turns = []
    for number, (here, there) in enumerate(pairwise(path)):
        if number == slip_at:
            ends = {route.maze.step(here, step, ignore_walls=True) for step in STEPS} - {here, there}
            turns.append(_line(judged, here, rng.choice(sorted(ends)), number + 1, cell))
            judged = WRONG
        turns.append(_line(judged, here, there, number + 1, cell))
        judged = GOOD
    turns.append(answer_turn(f"{judged}{LIST_IS}{route.answer}", route.answer))
    return Trace(row, tuple(turns), (slip_at,) if slip else ())


def _propose(spec: MazeSpec, rng: random.Random) -> Route | None:
    """A random maze with a shortest way of the right length; three other orders of its moves hit a wall."""
    cells = [(x, y) for y in range(spec.grid) for x in range(spec.grid)]
    bare = Maze(spec.grid, random_walls(spec, rng), rng.choice(cells), (), {})
    ways = _shortest(bare)
    low, high = max(3, spec.moves[0]), max(4, spec.moves[1])
    fitting = [moves for moves in ways.values() if low <= len(moves) <= high]
    if not fitting:
        return None
    moves = rng.choice(fitting)
    maze = Maze(spec.grid, bare.walls, bare.start, moves, {})
    orders = sorted(set(permutations(moves)) if len(moves) <= 6 else {moves} | _some_orders(moves, rng))
    inside = [order for order in orders if maze.path(order, ignore_walls=True)[-1] == maze.path()[-1]]
    wrong = [order for order in inside if any(a == b for a, b in pairwise(maze.path(order)))]
    if len(wrong) < len(LETTERS) - 1:
        return None
    offered = [moves, *rng.sample(wrong, len(LETTERS) - 1)]
    rng.shuffle(offered)
    return Route(maze, dict(zip(LETTERS, offered, strict=True)))


def _some_orders(moves: tuple[str, ...], rng: random.Random) -> set[tuple[str, ...]]:
    return {tuple(rng.sample(moves, len(moves))) for _ in range(100)}


def _shortest(maze: Maze) -> dict[Cell, tuple[str, ...]]:
    """A shortest list of moves to every cell that can be reached."""
    ways: dict[Cell, tuple[str, ...]] = {maze.start: ()}
    waiting = deque([maze.start])
    while waiting:
        cell = waiting.popleft()
        for move in STEPS:
            there = maze.step(cell, move)
            if there not in ways:
                ways[there] = (*ways[cell], move)
                waiting.append(there)
    return ways


def _tried(route: Route, letter: str) -> str:
    """What is said of a list: each move up to the first wall, "A: 1 up: open. 2 left: wall. "."""
    said, cell = f"{letter}: ", route.maze.start
    for number, move in enumerate(route.lists[letter], 1):
        blocked = route.maze.blocked(cell, move)
        said += f"{number} {move}{WALL if blocked else OPEN}"
        if blocked:
            break
        cell = route.maze.step(cell, move)
    return said


def _line(think: str, start: Cell, end: Cell, label: int, cell: int) -> str:
    return line_turn(think, [(1, (*centre(start, cell), *centre(end, cell)), label)])
