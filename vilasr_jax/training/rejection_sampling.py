"""Rejection sampling: the published rules by which sampled conversations become training data.

- reflective (arXiv 2506.09965, section 3): the answer is right, a label was drawn again at a later turn with
  other coordinates, and the format is right;
- cold_start: the answer is right, every operation was carried out, there are at least 3 rounds, and in a maze
  every line's end is within half a cell of a cell's centre.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from vilasr_jax.rollout import Trajectory

Test = Callable[[Trajectory], bool]
ROUNDS = 3


def answered(trajectory: Trajectory) -> bool:
    """Whether the conversation ended with an answer."""
    return trajectory.stop_reason == "answer"


def right(trajectory: Trajectory) -> bool:
    """Whether the answer is right."""
    return trajectory.reward["accuracy"] == 1


def reflective(trajectory: Trajectory) -> bool:
    """Whether a label was drawn again at a later turn with other coordinates."""
    return trajectory.corrected > 0


def well_formed(trajectory: Trajectory) -> bool:
    """Whether every turn has the published format."""
    return trajectory.reward["format"] == 1


def executed(trajectory: Trajectory) -> bool:
    """Whether every operation was carried out."""
    return not trajectory.errors


def several_rounds(trajectory: Trajectory) -> bool:
    """Whether there are at least 3 turns."""
    return len(trajectory.turns) >= ROUNDS


def on_centres(trajectory: Trajectory) -> bool:
    """Whether the lines in a maze start and end within half a cell of cells' centres; True elsewhere."""
    cells = _cells(trajectory)
    if cells is None:
        return True
    (left, top), (wide, high), grid = cells
    reach = (wide + high) / 4
    for turn in trajectory.turns:
        for call in turn["calls"]:
            if call["tool"] != "path_tracer":
                continue
            for x, y in ((call["x1"], call["y1"]), (call["x2"], call["y2"])):
                column = min(grid - 1, max(0, math.floor((x - left) / wide)))
                row = min(grid - 1, max(0, math.floor((y - top) / high)))
                centre = left + (column + 0.5) * wide, top + (row + 0.5) * high
                if math.dist((x, y), centre) > reach:
                    return False
    return True


# A rule's tests, in order.
RULES: dict[str, dict[str, Test]] = {
    "reflective": {"parsed": answered, "right": right, "reflective": reflective, "kept": well_formed},
    "cold_start": {
        "parsed": answered,
        "right": right,
        "executed": executed,
        "rounds": several_rounds,
        "kept": on_centres,
    },
}


def filter_trajectories(
    trajectories: Sequence[Trajectory], rule: str
) -> tuple[dict[str, int], list[Trajectory]]:
    """How many conversations pass each test after the ones before it, and those that pass all."""
    funnel, left = {"sampled": len(trajectories)}, list(trajectories)
    for name, test in RULES[rule].items():
        left = [trajectory for trajectory in left if test(trajectory)]
        funnel[name] = len(left)
    return funnel, left


def _cells(trajectory: Trajectory) -> tuple[tuple[float, float], tuple[float, float], int] | None:
    """A maze's corner, cell size and cells per side, in pixels; None for a row that isn't a maze.

    Our mazes fill the image. The published ones are Matplotlib figures, whose margins are fractions of it.
    """
    row, meta = trajectory.row, trajectory.row["meta"]
    grid = meta.get("grid_size")
    if row["data_type"] != "maze" or not isinstance(grid, int) or grid < 1:
        return None
    if "cell" in meta:
        return (0.0, 0.0), (float(meta["cell"]),) * 2, grid
    width, height = trajectory.images[0].size
    left, right_, top, bottom = int(width * 0.125), int(width * 0.1), int(height * 0.12), int(height * 0.11)
    return (left, top), ((width - left - right_) / grid, (height - top - bottom) / grid), grid
