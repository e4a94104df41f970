"""A room of coloured solids and cameras that look at it. Metres, x to the east, y to the north, z up."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

import numpy as np

from vilasr_jax.tasks.objects import COLORS

KINDS = ("same", "side", "camera", "motion", "closest", "distance")
SOLIDS = ("cube", "cylinder", "cone", "ball")
HALF = 2.0  # of the room's floor
RIM = 16  # corners of a round solid's rim

Box = tuple[float, float, float, float]
Corners = tuple[int, int, int, int]


@dataclass(frozen=True)
class Level:
    """How hard a room is. `side`, `snap` in pixels."""

    side: int
    solids: tuple[int, int]
    size: float = 0.5  # of a solid
    height: tuple[float, float] = (3.0, 4.0)  # of the cameras
    away: tuple[float, float] = (4.5, 5.5)  # of the cameras, from the middle of the room
    spots: int = 0  # solids are on a grid of this many places a side; 0: anywhere
    quarter: bool = False  # cameras are north, east, south or west
    snap: int = 1  # boxes are rounded outwards to multiples of this
    hidden: float = 0.15  # fraction of a solid's box that another's may cover
    views: int = 2
    looks: int = 0  # different looks among solids to find again; 0: all differ
    kinds: tuple[str, ...] = KINDS


_TINY = ("same", "side", "camera", "closest")
LEVELS = {
    "tiny": Level(
        84, (4, 4), 0.85, (9, 9), (5.5, 5.5), spots=3, quarter=True, snap=14, hidden=0.3, kinds=_TINY
    ),
    "tiny_wide": Level(
        112, (5, 5), 0.85, (9, 9), (5.5, 5.5), spots=3, quarter=True, snap=14, hidden=0.3, kinds=_TINY
    ),
    "easy": Level(252, (4, 4)),
    "medium": Level(336, (5, 6), 0.45, (2.2, 3.6), hidden=0.3, looks=3),
    "hard": Level(448, (7, 8), 0.4, (1.8, 3.4), hidden=0.45, views=3, looks=3),
}


@dataclass(frozen=True)
class Solid:
    """A solid on the floor; `size` is its width and height."""

    color: str
    shape: str
    x: float
    y: float
    size: float
    name: str

    @property
    def middle(self) -> tuple[float, float, float]:
        return self.x, self.y, self.size / 2


@dataclass(frozen=True)
class Camera:
    """A pinhole camera at (x, y, z); `yaw` (degrees) from east to north, `pitch` down from the horizon."""

    x: float
    y: float
    z: float
    yaw: float
    pitch: float
    focal: float  # in image sides

    def axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Unit vectors to the right, up and forward."""
        yaw, pitch = math.radians(self.yaw), math.radians(self.pitch)
        east, north = math.cos(yaw), math.sin(yaw)
        level, steep = math.cos(pitch), math.sin(pitch)
        right, up = (north, -east, 0.0), (east * steep, north * steep, level)
        return np.array(right), np.array(up), np.array((east * level, north * level, -steep))

    def project(self, points, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels [n, 2] of points [n, 3], and their depths [n] in metres."""
        right, up, ahead = self.axes()
        rel = np.atleast_2d(np.asarray(points, float)) - (self.x, self.y, self.z)
        depth = rel @ ahead
        scale = self.focal * side / np.maximum(depth, 1e-6)
        return np.stack([side / 2 + scale * (rel @ right), side / 2 - scale * (rel @ up)], 1), depth

    def moved(self, right: float = 0, up: float = 0, forward: float = 0, left_turn: float = 0) -> Camera:
        """The camera moved along its own right, the vertical and its way over the floor, then turned."""
        yaw = math.radians(self.yaw)
        x = self.x + right * math.sin(yaw) + forward * math.cos(yaw)
        y = self.y - right * math.cos(yaw) + forward * math.sin(yaw)
        return replace(self, x=x, y=y, z=self.z + up, yaw=self.yaw + left_turn)


def make_camera(level: Level, azimuth: float, rng: random.Random) -> Camera:
    """A camera at this azimuth (degrees) that looks at the middle of the room."""
    away, z = rng.uniform(*level.away), rng.uniform(*level.height)
    angle = math.radians(azimuth)
    far = math.hypot(away, z)
    x, y, pitch = away * math.cos(angle), away * math.sin(angle), math.degrees(math.atan2(z - 0.2, away))
    return Camera(x, y, z, azimuth + 180, pitch, focal=far / (3.0 * HALF))


def make_solids(level: Level, rng: random.Random, twins: bool) -> list[Solid] | None:
    """Solids that do not touch; None when one finds no room. With `twins` only `level.looks` looks differ."""
    count = rng.randint(*level.solids)
    if level.spots:
        looks = [(color, rng.choice(SOLIDS), color) for color in rng.sample(list(COLORS), count)]
    else:
        pairs = rng.sample([(color, shape) for color in COLORS for shape in SOLIDS], count)
        looks = [(color, shape, f"{color} {shape}") for color, shape in pairs]
    if twins and level.looks:
        looks = [looks[number % level.looks] for number in range(count)]
    solids: list[Solid] = []
    for color, shape, name in looks:
        for _ in range(20):
            x, y = (_spot(level, rng) for _ in range(2))
            if all(math.hypot(x - other.x, y - other.y) > 1.5 * level.size for other in solids):
                solids.append(Solid(color, shape, x, y, level.size, name))
                break
        else:
            return None
    return solids


def corners_of(solid: Solid) -> np.ndarray:
    """[n, 3] points whose outline is the solid's (not the ball's)."""
    half, top = solid.size / 2, solid.size
    if solid.shape == "cube":
        rim = [(half * a, half * b) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    else:
        turns = [2 * math.pi * k / RIM for k in range(RIM)]
        rim = [(half * math.cos(t), half * math.sin(t)) for t in turns]
    low = [(solid.x + a, solid.y + b, 0.0) for a, b in rim]
    high = [(solid.x, solid.y, top)] if solid.shape == "cone" else [(x, y, top) for x, y, _ in low]
    return np.array(low + high)


def box_of(solid: Solid, camera: Camera, level: Level) -> Box:
    """The solid's box in the camera's image, in pixels; it may be outside."""
    if solid.shape == "ball":
        centre, depth = camera.project([solid.middle], level.side)
        radius = camera.focal * level.side * solid.size / 2 / depth[0]
        low, high = centre[0] - radius, centre[0] + radius
    else:
        pixels, _ = camera.project(corners_of(solid), level.side)
        low, high = pixels.min(0), pixels.max(0)
    (left, top), (right, bottom) = map(float, low), map(float, high)
    return left, top, right, bottom


def rounded(box: Box, level: Level) -> Corners:
    """A box in integer pixels, rounded outwards to multiples of `level.snap`, inside the image."""
    snap = level.snap
    left, top = (max(0, math.floor(v / snap) * snap) for v in box[:2])
    right, bottom = (min(level.side, math.ceil(v / snap) * snap) for v in box[2:])
    return left, top, right, bottom


def covered(a: Box, b: Box) -> float:
    """Fraction of the smaller box that the other covers."""
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(0.0, wide) * max(0.0, high) / max(1.0, smaller)


def _spot(level: Level, rng: random.Random) -> float:
    if level.spots:
        return (rng.randrange(level.spots) - (level.spots - 1) / 2) * 2 * HALF / level.spots
    return rng.uniform(-HALF + level.size, HALF - level.size)
