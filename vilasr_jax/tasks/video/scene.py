"""Seeded videos: coloured objects that appear, move in straight lines, and may leave the image."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from vilasr_jax.tasks.objects import COLORS, SHAPES, Thing, distance

KINDS = ("order", "direction", "count", "total", "gone", "beyond")
WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


@dataclass(frozen=True)
class Level:
    """How hard a video is. Sizes in pixels, speeds in pixels a frame."""

    side: int
    frames: tuple[int, int]
    things: tuple[int, int]
    radius: tuple[float, float]
    speed: tuple[float, float]
    cell: int = 0  # objects move from cell to cell of this size; 0: anywhere
    slant: float = 0.0  # how far a way may lean, as a fraction of its length
    kinds: tuple[str, ...] = KINDS


_TINY = ("order", "direction", "count", "gone")
LEVELS = {
    "tiny": Level(84, (4, 4), (3, 3), (10, 10), (28, 28), cell=28, kinds=_TINY),
    "tiny_wide": Level(112, (5, 5), (4, 4), (10, 10), (28, 28), cell=28, kinds=_TINY),
    "easy": Level(168, (6, 8), (3, 4), (12, 16), (14, 26)),
    "medium": Level(224, (8, 16), (4, 6), (12, 20), (10, 24), slant=0.3),
    "hard": Level(280, (16, 32), (5, 8), (12, 24), (8, 18), slant=0.4),
}


@dataclass(frozen=True)
class Mover:
    """An object in time: `thing` is where it is in frame `since` (from 1); then it moves by (dx, dy) a frame.

    It stays where it is when both are 0. It is seen while its centre is inside the image.
    """

    thing: Thing
    since: int
    dx: float
    dy: float

    def at(self, frame: int) -> Thing:
        """The object in a frame, also where it can't be seen."""
        steps = frame - self.since
        return replace(self.thing, x=self.thing.x + steps * self.dx, y=self.thing.y + steps * self.dy)

    def seen(self, frames: int, side: int) -> list[int]:
        """The frames that show it; it never comes back."""
        found = []
        for frame in range(self.since, frames + 1):
            thing = self.at(frame)
            if not (0 <= thing.x < side and 0 <= thing.y < side):
                break
            found.append(frame)
        return found


def make_movers(level: Level, frames: int, rng: random.Random, leaves: bool) -> list[Mover] | None:
    """Objects of different colours that never meet, the first always moving; None when two come too close.

    With `leaves` the first leaves the image before the last frame.
    """
    movers = []
    for number, color in enumerate(rng.sample(list(COLORS), rng.randint(*level.things))):
        mover = _mover(level, frames, color, rng, moves=number == 0 or rng.random() < 0.6)
        seen = mover.seen(frames, level.side)
        if len(seen) < 2 or (number == 0 and leaves != (seen[-1] < frames)):
            return None
        movers.append(mover)
    return None if any(_meet(a, b, frames, level.side) for a, b in combinations(movers, 2)) else movers


def visible(movers: Sequence[Mover], frame: int, frames: int, side: int) -> list[Thing]:
    """The objects as a frame shows them."""
    return [mover.at(frame) for mover in movers if frame in mover.seen(frames, side)]


def _mover(level: Level, frames: int, color: str, rng: random.Random, moves: bool) -> Mover:
    radius, since = rng.uniform(*level.radius), rng.randint(1, max(1, frames - 2))
    if level.cell:
        x, y = ((rng.randrange(level.side // level.cell) + 0.5) * level.cell for _ in range(2))
    else:
        x, y = (rng.uniform(radius, level.side - radius) for _ in range(2))
    dx = dy = 0.0
    if moves:
        (wx, wy), speed = rng.choice(list(WAYS.values())), rng.uniform(*level.speed)
        lean = rng.uniform(-level.slant, level.slant)
        dx, dy = speed * (wx + lean * wy), speed * (wy + lean * wx)
    return Mover(Thing(color, rng.choice(SHAPES), x, y, radius, color), since, dx, dy)


def _meet(a: Mover, b: Mover, frames: int, side: int) -> bool:
    """Whether two objects come too close in a frame that shows both."""
    near = 1.1 * (a.thing.radius + b.thing.radius)
    both = set(a.seen(frames, side)) & set(b.seen(frames, side))
    return any(distance(a.at(frame), b.at(frame)) < near for frame in both)
