"""Draws a room: floor, far walls, and solids from the farthest to the nearest, shaded face by face."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from vilasr_jax.tasks.glyphs import glyph, plate_size, plate_unit
from vilasr_jax.tasks.multiview.room import HALF, RIM, Camera, Solid, corners_of
from vilasr_jax.tasks.objects import COLORS, SMOOTH, Color, Look

WALL = 1.0  # metres
LIGHT = np.array([0.35, -0.5, 0.8]) / np.linalg.norm([0.35, -0.5, 0.8])


def draw_room(
    side: int, solids: Sequence[Solid], camera: Camera, look: Look, marks: Mapping[int, str]
) -> Image.Image:
    """The RGB image, `side` pixels square. `marks` puts a letter above a solid, an arrow where it is ""."""
    size = side * SMOOTH
    image = Image.new("RGB", (size, size), look.background)
    draw = ImageDraw.Draw(image)
    _draw_walls(draw, camera, look, size)
    _, depths = camera.project([solid.middle for solid in solids], size)
    for number in np.argsort(-depths):
        _draw_solid(draw, solids[number], camera, look, size)
    image = image.reduce(SMOOTH)
    draw = ImageDraw.Draw(image)
    for number, letter in marks.items():
        solid = solids[number]
        ((x, y),), _ = camera.project([(solid.x, solid.y, solid.size)], side)
        _draw_mark(draw, round(x), round(y), letter, side)
    return image


def _draw_walls(draw: ImageDraw.ImageDraw, camera: Camera, look: Look, size: int) -> None:
    """The floor with a grid of one metre, and the walls that face the camera."""
    floor = [(-HALF, -HALF, 0), (HALF, -HALF, 0), (HALF, HALF, 0), (-HALF, HALF, 0)]
    draw.polygon(_pixels(camera, floor, size), _shade(look.clutter, 0.96), look.outline)
    for k in np.arange(-HALF + 1, HALF, 1):
        for ends in ([(k, -HALF, 0), (k, HALF, 0)], [(-HALF, k, 0), (HALF, k, 0)]):
            draw.line(_pixels(camera, ends, size), _shade(look.clutter, 0.88), SMOOTH)
    for a, b in zip(floor, floor[1:] + floor[:1], strict=True):
        inward = -np.array([(a[0] + b[0]) / 2, (a[1] + b[1]) / 2])
        if inward @ (np.array([camera.x, camera.y]) + inward) > 0:
            wall = [a, b, (b[0], b[1], WALL), (a[0], a[1], WALL)]
            draw.polygon(_pixels(camera, wall, size), _shade(look.clutter, 1.06), look.outline)


def _draw_solid(draw: ImageDraw.ImageDraw, solid: Solid, camera: Camera, look: Look, size: int) -> None:
    color = COLORS[solid.color]
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ring = np.stack([np.cos(turns), np.sin(turns), 0 * turns], 1) * solid.size * 0.62 + (solid.x, solid.y, 0)
    draw.polygon(_pixels(camera, ring, size), _shade(look.clutter, 0.82))
    if solid.shape == "ball":
        (centre,), (depth,) = camera.project([solid.middle], size)
        radius = camera.focal * size * solid.size / 2 / depth
        for part, bright in ((1.0, 0.78), (0.86, 0.92), (0.6, 1.06), (0.28, 1.3)):
            x, y = centre - (1 - part) * radius * np.array([0.35, 0.45])
            box = (x - part * radius, y - part * radius, x + part * radius, y + part * radius)
            draw.ellipse(box, _shade(color, bright), look.outline if part == 1 else None, SMOOTH)
        return
    for face, normal in _faces(solid):
        if normal @ (np.array([camera.x, camera.y, camera.z]) - face[0]) > 0:
            smooth = solid.shape != "cube" and abs(normal[2]) < 0.9
            shaded = _shade(color, 0.72 + 0.38 * max(0.0, float(normal @ LIGHT)))
            draw.polygon(_pixels(camera, face, size), shaded, shaded if smooth else look.outline)


def _faces(solid: Solid) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each face's corners [n, 3] and outward normal."""
    points = corners_of(solid)
    count = 4 if solid.shape == "cube" else RIM
    low, high = points[:count], points[count:]
    faces = []
    for k in range(count):
        after = (k + 1) % count
        if solid.shape == "cone":
            face = np.array([low[k], low[after], high[0]])
        else:
            face = np.array([low[k], low[after], high[after], high[k]])
        x, y = (low[k][0] + low[after][0]) / 2 - solid.x, (low[k][1] + low[after][1]) / 2 - solid.y
        far = math.hypot(x, y)
        rise = far / solid.size if solid.shape == "cone" else 0.0
        faces.append((face, np.array([x / far, y / far, rise]) / math.hypot(1, rise)))
    return faces if solid.shape == "cone" else [*faces, (high, np.array([0.0, 0.0, 1.0]))]


def _draw_mark(draw: ImageDraw.ImageDraw, x: int, y: int, letter: str, side: int) -> None:
    """A letter on a white plate, or an arrow, just above (x, y)."""
    unit = plate_unit(side)
    if not letter:
        top = max(0, y - 13 * unit)
        corners = [(x - 6 * unit, top), (x + 6 * unit, top), (x, top + 11 * unit)]
        draw.polygon(corners, (20, 20, 20), (255, 255, 255))
        return
    shape, (wide, high) = glyph(letter, 1 + unit), plate_size(side)
    left, top = min(max(0, x - wide // 2), side - wide), max(0, y - high - unit)
    draw.rectangle((left, top, left + wide - 1, top + high - 1), (255, 255, 255), (20, 20, 20))
    draw.bitmap((left + 2 * unit, top + 2 * unit), shape, fill=(20, 20, 20))


def _pixels(camera: Camera, points, size: int) -> list[tuple[float, float]]:
    return [tuple(pixel) for pixel in camera.project(points, size)[0]]


def _shade(color: Color, bright: float) -> Color:
    red, green, blue = (min(255, round(part * bright)) for part in color)
    return red, green, blue
