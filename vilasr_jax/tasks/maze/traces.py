"""Expert traces in the published format: one open move a turn with Path Tracer, then the answer.

A turn judges the last line ("good." or "wrong."), says of each next move whether a wall blocks it, and draws
the first open one. A slip is one line drawn wrongly; the next turn says so and draws its label again, right.
"""

import random
from dataclasses import dataclass
from itertools import pairwise

from vilasr_jax.tasks.maze.maze import STEPS, Cell, Maze
from vilasr_jax.tasks.maze.picture import centre
from vilasr_jax.tasks.rows import Row, Trace
from vilasr_jax.tasks.trace_text import GOOD, WRONG, answer_turn, line_turn, point

OPEN, WALL = ": open. ", ": wall. "
ENDS_AT = "The path ends at "


@dataclass(frozen=True)
class _Leg:
    """One open move with the blocked ones before it."""

    blocked: tuple[int, ...]  # positions in the list of moves, from 0
    move: int
    start: Cell
    end: Cell


def expert_trace(row: Row, rng: random.Random, slip: bool = False, labels: str = "move") -> Trace:
    """The right conversation of a maze row; with `slip` one line is wrong and corrected a turn later.

    `labels` numbers the lines by "move" (the number in the question) or by "line" (1, 2, ...). With "line" a
    slip may also be a wall read as open or an open side read as a wall, because the next line reuses the
    wrong one's label.
    """
    maze, cell = row.scene, row.meta["cell"]
    legs, tail = _legs(maze)
    slip_at = rng.randrange(len(legs)) if slip else -1
    turns: list[str] = []
    judged, mistakes = "", tuple[int, ...]()
    for number, leg in enumerate(legs):
        label = leg.move + 1 if labels == "move" else number + 1
        if number == slip_at:
            said, end = _slipped(maze, leg, rng, labels == "line")
            turns.append(_draw(judged + said, leg.start, end, label, cell))
            judged, mistakes = WRONG, (number,)
        said = _verdicts(maze, leg.blocked, WALL) + _verdicts(maze, (leg.move,), OPEN)
        turns.append(_draw(judged + said, leg.start, leg.end, label, cell))
        judged = GOOD
    said = judged + _verdicts(maze, tail, WALL)
    turns.append(_answer(maze, said))
    return Trace(row, tuple(turns), mistakes)


def text_trace(row: Row) -> Trace:
    """Control: the same steps with the coordinates written in one think, nothing drawn."""
    maze, cell = row.scene, row.meta["cell"]
    said = point(*centre(maze.start, cell)) + ". "
    legs, tail = _legs(maze)
    for leg in legs:
        said += _verdicts(maze, leg.blocked, WALL) + _verdicts(maze, (leg.move,), OPEN)
        said += point(*centre(leg.end, cell)) + ". "
    said += _verdicts(maze, tail, WALL)
    return Trace(row, (_answer(maze, said),))


def direct_trace(row: Row) -> Trace:
    """Control: the answer at once."""
    return Trace(row, (_answer(row.scene, ""),))


def _legs(maze: Maze) -> tuple[list[_Leg], tuple[int, ...]]:
    """The open moves, and the blocked moves after the last of them."""
    legs, blocked, path = [], [], maze.path()
    for position, (here, there) in enumerate(pairwise(path)):
        if here == there:
            blocked.append(position)
        else:
            legs.append(_Leg(tuple(blocked), position, here, there))
            blocked = []
    return legs, tuple(blocked)


def _slipped(maze: Maze, leg: _Leg, rng: random.Random, reuses_label: bool) -> tuple[str, Cell]:
    """Words and end of a wrong line: the wrong neighbour or, where the next line reuses its
    label, also a wall overlooked or seen where there is none."""
    ends = {maze.step(leg.start, step, ignore_walls=True) for step in STEPS} - {leg.start, leg.end}
    said = _verdicts(maze, leg.blocked, WALL) + _verdicts(maze, (leg.move,), OPEN)
    mistakes = [(said, rng.choice(sorted(ends)))]
    if reuses_label:
        mistakes += _overlooked(maze, leg) + _imagined(maze, leg)
    return rng.choice(mistakes)


def _overlooked(maze: Maze, leg: _Leg) -> list[tuple[str, Cell]]:
    """Words and end of a line through each wall before the leg's open move (the border is never crossed)."""
    mistakes = []
    for number, position in enumerate(leg.blocked):
        end = maze.step(leg.start, maze.moves[position], ignore_walls=True)
        if end not in (leg.start, leg.end):
            said = _verdicts(maze, leg.blocked[:number], WALL) + _verdicts(maze, (position,), OPEN)
            mistakes.append((said, end))
    return mistakes


def _imagined(maze: Maze, leg: _Leg) -> list[tuple[str, Cell]]:
    """Words and end of the next line when the open move is read as blocked; none after the last line."""
    said = _verdicts(maze, (*leg.blocked, leg.move), WALL)
    for position in range(leg.move + 1, len(maze.moves)):
        end = maze.step(leg.start, maze.moves[position])
        if end == leg.end:
            return []  # the same line by another move
        if end != leg.start:
            return [(said + _verdicts(maze, (position,), OPEN), end)]
        said += _verdicts(maze, (position,), WALL)
    return []


def _verdicts(maze: Maze, positions: tuple[int, ...], verdict: str) -> str:
    return "".join(f"{position + 1} {maze.moves[position]}{verdict}" for position in positions)


def _draw(think: str, start: Cell, end: Cell, label: int, cell: int) -> str:
    return line_turn(think, [(1, (*centre(start, cell), *centre(end, cell)), label)])


def _answer(maze: Maze, think: str) -> str:
    return answer_turn(f"{think}{ENDS_AT}{maze.answer}", maze.answer)
