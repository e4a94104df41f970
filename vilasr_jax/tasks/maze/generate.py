"""Seeded mazes: walls, a list of moves, and four lettered cells, one of them the true end.

A move into a wall or off the grid is skipped. The other letters are where likely mistakes end.
"""

import random
from itertools import pairwise

from vilasr_jax.tasks.maze.maze import LETTERS, OPPOSITE, STEPS, Cell, Maze
from vilasr_jax.tasks.maze.picture import draw_maze
from vilasr_jax.tasks.maze.spec import LOOKS, MazeSpec
from vilasr_jax.tasks.rows import Row
from vilasr_jax.tasks.splits import first_in_split


def make_maze(spec: MazeSpec, seed: int) -> Maze:
    """The maze of a seed. Deterministic; always of the spec's split."""
    key = (spec.grid, tuple(spec.moves), spec.wall_density, spec.decisive, spec.split, seed)
    rng = random.Random(repr(key))
    decisive = rng.random() < spec.decisive
    return first_in_split(lambda: _propose(spec, rng, decisive), lambda maze: maze.content_hash, spec.split)


def make_maze_row(spec: MazeSpec, seed: int) -> Row:
    """The row of a seed: image, question, answer; `scene` is the `Maze`."""
    maze = make_maze(spec, seed)
    path = maze.path()
    return Row(
        id=f"maze-{spec.split}-{spec.grid}x{spec.grid}-{spec.look}-{seed}",
        question=question(maze),
        answer=maze.answer,
        question_type="multiple choice",
        options=tuple(LETTERS),
        images=(draw_maze(maze, spec.cell, LOOKS[spec.look]),),
        data_type="maze",
        meta={
            "family": "maze",
            "kind": "end",
            "cell": spec.cell,
            "grid_size": spec.grid,
            "blocked_moves": sum(a == b for a, b in pairwise(path)),
            "decisive": maze.path(ignore_walls=True)[-1] != path[-1],
            "hash": maze.content_hash,
        },
        scene=maze,
    )


MOVES_START = "Moves from the green start: "
MOVES_END = ". A move into a wall or off the grid is skipped. At which letter does the path end?"


def question(maze: Maze) -> str:
    """The question: the numbered moves, then where they end."""
    return (
        MOVES_START + ", ".join(f"{number} {move}" for number, move in enumerate(maze.moves, 1)) + MOVES_END
    )


def random_walls(spec: MazeSpec, rng: random.Random) -> frozenset[tuple[Cell, Cell]]:
    """Each inner edge with the spec's probability."""
    grid = spec.grid
    cells = [(x, y) for y in range(grid) for x in range(grid)]
    edges = [((x, y), (x + 1, y)) for x, y in cells if x + 1 < grid]
    edges += [((x, y), (x, y + 1)) for x, y in cells if y + 1 < grid]
    return frozenset(edge for edge in edges if rng.random() < spec.wall_density)


def _propose(spec: MazeSpec, rng: random.Random, decisive: bool) -> Maze | None:
    """One random maze, or None when it has too few open moves or is not as `decisive` as wanted."""
    grid = spec.grid
    cells = [(x, y) for y in range(grid) for x in range(grid)]
    walls = random_walls(spec, rng)
    start = rng.choice(cells)
    bare = Maze(grid, walls, start, (), {})
    moves = _random_moves(bare, rng, rng.randint(*spec.moves))
    maze = Maze(grid, walls, start, moves, {})
    end, ignoring = maze.path()[-1], maze.path(ignore_walls=True)[-1]
    path = maze.path()
    opened = sum(a != b for a, b in pairwise(path))
    if end == start or opened < max(2, len(moves) // 2) or decisive != (ignoring != end):
        return None
    return Maze(grid, walls, start, moves, _place_letters(maze, rng))


def _random_moves(maze: Maze, rng: random.Random, count: int) -> tuple[str, ...]:
    """A walk that never turns straight back or tries a wall twice, and seldom leaves the grid."""
    moves: list[str] = []
    cell, banned = maze.start, set[str]()
    for _ in range(count):
        choices = [move for move in STEPS if move not in banned] or list(STEPS)
        inside = [move for move in choices if not maze.blocked(cell, move, ignore_walls=True)]
        move = rng.choice(inside if inside and rng.random() < 0.9 else choices)
        there = maze.step(cell, move)
        banned = {OPPOSITE[move]} if there != cell else banned | {move}
        cell = there
        moves.append(move)
    return tuple(moves)


def _place_letters(maze: Maze, rng: random.Random) -> dict[str, Cell]:
    """The true end and three other cells: ends of likely mistakes first, then reachable cells."""
    end = maze.path()[-1]
    mistakes = [maze.path(ignore_walls=True)[-1]]
    near = [maze.path(maze.moves[:i] + maze.moves[i + 1 :])[-1] for i in range(len(maze.moves))]
    near += [_end_through(maze, i) for i in range(len(maze.moves))]
    rng.shuffle(near)
    rest = sorted(_reachable(maze))
    rng.shuffle(rest)
    others = [(x, y) for x in range(maze.grid) for y in range(maze.grid)]
    rng.shuffle(others)
    chosen: list[Cell] = [end]
    for cell in mistakes + near[: len(maze.moves)] + rest + others:
        if cell not in chosen and cell != maze.start and len(chosen) < len(LETTERS):
            chosen.append(cell)
    rng.shuffle(chosen)
    return dict(zip(LETTERS, chosen, strict=True))


def _end_through(maze: Maze, number: int) -> Cell:
    """The end when one move (by position) goes through a wall."""
    cell = maze.start
    for position, move in enumerate(maze.moves):
        cell = maze.step(cell, move, ignore_walls=position == number)
    return cell


def _reachable(maze: Maze) -> set[Cell]:
    found, open_ = {maze.start}, [maze.start]
    while open_:
        cell = open_.pop()
        for move in STEPS:
            there = maze.step(cell, move)
            if there not in found:
                found.add(there)
                open_.append(there)
    return found
