"""Seeded images of coloured objects: levels of difficulty, and the objects' places."""

from __future__ import annotations

import random
from dataclasses import dataclass

from vilasr_jax.tasks.objects import COLORS, SHAPES, Thing, distance

KINDS = ("relation", "furthest", "nearest", "between", "count", "size", "distance")


@dataclass(frozen=True)
class Level:
    """How hard an image is. Sizes in pixels."""

    side: int
    things: tuple[int, int]  # the least and the most objects
    radius: tuple[float, float]
    cell: int = 0  # objects are in the middle of cells of this size; 0: anywhere
    overlap: float = 0.0  # fraction of two radii's sum by which objects may overlap
    clutter: int = 0  # faint strokes in the background
    most: int = 6  # objects counted at most
    kinds: tuple[str, ...] = KINDS


_TINY = ("relation", "furthest", "nearest", "count")
LEVELS = {
    "tiny": Level(84, (4, 4), (10, 10), cell=28, most=4, kinds=_TINY),
    "tiny_wide": Level(112, (5, 5), (10, 10), cell=28, most=5, kinds=_TINY),
    "easy": Level(252, (4, 5), (16, 26)),
    "medium": Level(336, (6, 8), (16, 34), overlap=0.2, clutter=12, most=8),
    "hard": Level(448, (9, 12), (14, 40), overlap=0.4, clutter=30, most=10),
}


def names(level: Level, count: int, rng: random.Random) -> list[tuple[str, str, str]]:
    """(colour, shape, name) of `count` objects, no two alike; colours alone name them where they suffice."""
    if level.cell:
        colors = rng.sample(list(COLORS), count)
        return [(color, rng.choice(SHAPES), color) for color in colors]
    pairs = rng.sample([(color, shape) for color in COLORS for shape in SHAPES], count)
    return [(color, shape, f"{color} {shape}") for color, shape in pairs]


def place(
    level: Level, described: list[tuple[str, str, str]], rng: random.Random, between: bool = False
) -> list[Thing] | None:
    """The objects at random places, as far apart as the level says; None when one does not fit.

    With `between` the third is midway between the first two.
    """
    things: list[Thing] = []
    for number, (color, shape, name) in enumerate(described):
        radius = rng.uniform(*level.radius)
        for _ in range(20):
            x, y = _somewhere(level, radius, rng)
            if between and number == 2:
                x, y = ((things[0].x + things[1].x) / 2, (things[0].y + things[1].y) / 2)
            thing = Thing(color, shape, x, y, radius, name)
            room = 1 - level.overlap if level.overlap else 1.1
            if all(distance(thing, other) >= room * (radius + other.radius) for other in things):
                things.append(thing)
                break
            if between and number == 2:
                return None
        else:
            return None
    return things


def strokes(level: Level, rng: random.Random) -> list[tuple[float, ...]]:
    """Faint background lines."""
    side = level.side
    return [
        (*(rng.uniform(0, side) for _ in range(4)), rng.uniform(1, side / 60)) for _ in range(level.clutter)
    ]


def _somewhere(level: Level, radius: float, rng: random.Random) -> tuple[float, float]:
    if level.cell:
        cells = level.side // level.cell
        x, y = ((rng.randrange(cells) + 0.5) * level.cell for _ in range(2))
        return x, y
    return rng.uniform(radius + 2, level.side - radius - 2), rng.uniform(radius + 2, level.side - radius - 2)
