"""Rooms seen from several places as a task family."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

from PIL import Image

from vilasr_jax.tasks.multiview.picture import draw_room
from vilasr_jax.tasks.multiview.questions import MOVES, PHRASES, Views, make_question
from vilasr_jax.tasks.multiview.room import LEVELS, Camera, Level, make_camera, make_solids
from vilasr_jax.tasks.objects import LOOKS
from vilasr_jax.tasks.scene_family import Scene, SceneFamily, SceneSpec

WIDER = 0.8  # of the focal length, where the camera moves and must still see everything


class MultiviewFamily(SceneFamily):
    """Same object across views, relative direction from another viewpoint, camera motion, distance."""

    name = "multiview"
    levels = LEVELS
    lines = True
    data_type = "spatial_r1"
    phrases = (*SceneFamily.phrases, *PHRASES)

    def propose(self, spec: SceneSpec, kind: str, aim: float, rng: random.Random) -> Scene | None:
        level = self.level(spec)
        solids = make_solids(level, rng, twins=kind == "same")
        if solids is None:
            return None
        cameras = _cameras(level, kind, aim, rng)
        views = Views(solids, cameras, level)
        question = make_question(kind, views, aim, rng)
        if question is None or not views.clear:
            return None
        marks = [views.box(view, k) for view in range(len(cameras)) for k in range(len(solids))]
        content = [
            sorted((s.color, s.shape, round(s.x, 2), round(s.y, 2)) for s in solids),
            [tuple(round(value, 1) for value in dataclasses.astuple(camera)[:4]) for camera in cameras],
        ]
        sizes = ((level.side, level.side),) * len(cameras)
        return Scene(content, sizes, tuple(marks), question, views)

    def render_images(self, spec: SceneSpec, scene: Scene) -> Sequence[Image.Image]:
        views: Views = scene.drawn
        return [
            draw_room(size[0], views.solids, camera, LOOKS[spec.look], views.marks.get(number, {}))
            for number, (size, camera) in enumerate(zip(scene.sizes, views.cameras, strict=True))
        ]


def _cameras(level: Level, kind: str, aim: float, rng: random.Random) -> list[Camera]:
    """The cameras of a row: one that moves, or several around the room."""
    azimuth = 90.0 * rng.randrange(4) if level.quarter else rng.uniform(0, 360)
    first = make_camera(level, azimuth, rng)
    if kind in ("camera", "motion"):
        first = dataclasses.replace(first, focal=WIDER * first.focal)
    if kind == "camera":
        across, ahead = ((-1, 0), (1, 0), (0, 1), (0, -1))[int(aim * len(MOVES))]
        step = rng.choice((0.8, 1.0, 1.2))
        return [first, first.moved(right=step * across, forward=step * ahead)]
    if kind == "motion":
        right, up, forward = (rng.choice((-1, 0, 1)) * rng.randint(2, 9) / 10 for _ in range(3))
        return [first, first.moved(right or 0.3, up, forward, rng.choice((-1, 1)) * 5 * rng.randint(1, 3))]
    cameras = [first]
    while len(cameras) < level.views:
        turn = 90.0 * rng.randint(1, 3) if level.quarter else rng.choice((-1, 1)) * rng.uniform(40, 100)
        cameras.append(make_camera(level, azimuth + turn, rng))
    return cameras


FAMILY = MultiviewFamily()
