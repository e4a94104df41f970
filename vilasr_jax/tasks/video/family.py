"""Videos as a task family."""

from __future__ import annotations

import random
from collections.abc import Sequence

from PIL import Image

from vilasr_jax.tasks.objects import LOOKS, draw_things
from vilasr_jax.tasks.scene_family import Mark, Scene, SceneFamily, SceneSpec
from vilasr_jax.tasks.video.questions import PHRASES, Video, make_question, thing_box
from vilasr_jax.tasks.video.scene import LEVELS, make_movers, visible

LEAVE = ("gone", "beyond")


class VideoFamily(SceneFamily):
    """Order of appearance, direction, count over time, and where an object that left must be."""

    name = "video"
    levels = LEVELS
    data_type = "video"
    phrases = (*SceneFamily.phrases, *PHRASES)

    def propose(self, spec: SceneSpec, kind: str, aim: float, rng: random.Random) -> Scene | None:
        level = self.level(spec)
        frames = rng.randint(*level.frames)
        movers = make_movers(level, frames, rng, leaves=kind in LEAVE)
        if not movers:
            return None
        question = make_question(kind, Video(movers, frames, level), aim, rng)
        if question is None:
            return None
        shown = [visible(movers, frame, frames, level.side) for frame in range(1, frames + 1)]
        marks = [
            Mark(frame, thing_box(thing, level), thing.name)
            for frame, things in enumerate(shown, 1)
            for thing in things
        ]
        content = [
            (m.since, t.color, t.shape, *(round(v, 1) for v in (t.x, t.y, m.dx, m.dy)))
            for m in movers
            for t in [m.thing]
        ]
        sizes = ((level.side, level.side),) * frames
        return Scene((frames, sorted(content)), sizes, tuple(marks), question, shown)

    def render_images(self, spec: SceneSpec, scene: Scene) -> Sequence[Image.Image]:
        look = LOOKS[spec.look]
        return [
            draw_things(*size, things, look) for size, things in zip(scene.sizes, scene.drawn, strict=True)
        ]


FAMILY = VideoFamily()
