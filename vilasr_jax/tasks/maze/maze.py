"""A maze: its cells, walls and moves, and where they lead."""

from dataclasses import dataclass

from vilasr_jax.tasks.splits import content_hash

Cell = tuple[int, int]  # column, row

STEPS: dict[str, Cell] = {"up": (0, -1), "right": (1, 0), "down": (0, 1), "left": (-1, 0)}
OPPOSITE = {"up": "down", "down": "up", "left": "right", "right": "left"}
LETTERS = "ABCD"


@dataclass(frozen=True)
class Maze:
    """One maze. `walls` holds pairs of neighbouring cells (smaller first); the border is always a wall."""

    grid: int
    walls: frozenset[tuple[Cell, Cell]]
    start: Cell
    moves: tuple[str, ...]
    letters: dict[str, Cell]

    def blocked(self, cell: Cell, direction: str, ignore_walls: bool = False) -> bool:
        """Whether one can't leave `cell` in this direction."""
        step = STEPS[direction]
        there = (cell[0] + step[0], cell[1] + step[1])
        if not (0 <= there[0] < self.grid and 0 <= there[1] < self.grid):
            return True
        return not ignore_walls and (min(cell, there), max(cell, there)) in self.walls

    def step(self, cell: Cell, direction: str, ignore_walls: bool = False) -> Cell:
        """Where a move from `cell` ends."""
        if self.blocked(cell, direction, ignore_walls):
            return cell
        return cell[0] + STEPS[direction][0], cell[1] + STEPS[direction][1]

    def path(self, moves: tuple[str, ...] | None = None, ignore_walls: bool = False) -> list[Cell]:
        """The cell before the first and after every move."""
        cells = [self.start]
        for move in self.moves if moves is None else moves:
            cells.append(self.step(cells[-1], move, ignore_walls))
        return cells

    @property
    def answer(self) -> str:
        """The letter at the true end."""
        end = self.path()[-1]
        return next(letter for letter, cell in self.letters.items() if cell == end)

    @property
    def content_hash(self) -> str:
        """Of walls, start and moves (letters left out); decides the split."""
        return content_hash((self.grid, sorted(self.walls), self.start, self.moves))
