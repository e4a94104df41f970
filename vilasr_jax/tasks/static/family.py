"""Static images as a task family."""

from __future__ import annotations

import random
from collections.abc import Sequence

from PIL import Image

from vilasr_jax.tasks.objects import COLORS, LOOKS, SHAPES, draw_things
from vilasr_jax.tasks.scene_family import Scene, SceneFamily, SceneSpec
from vilasr_jax.tasks.static.questions import PHRASES, box, make_question
from vilasr_jax.tasks.static.scene import LEVELS, Level, names, place, strokes


class StaticFamily(SceneFamily):
    """Left, right, above, between, nearest, counting, size and pixel distance of objects in one image."""

    name = "static"
    levels = LEVELS
    lines = True
    phrases = (*SceneFamily.phrases, *PHRASES)

    def propose(self, spec: SceneSpec, kind: str, aim: float, rng: random.Random) -> Scene | None:
        level = self.level(spec)
        described = names(level, rng.randint(*level.things), rng)
        if kind == "count":
            described = _repeated(level, aim, rng)
        things = place(level, described, rng, between=kind == "between")
        if not things:
            return None
        question = make_question(kind, things, level, rng)
        if question is None:
            return None
        lines = strokes(level, rng)
        order = rng.sample(things, len(things))
        content = [(t.color, t.shape, round(t.x, 1), round(t.y, 1), round(t.radius, 1)) for t in things]
        marks = [box(thing, level) for thing in things]
        return Scene((sorted(content),), ((level.side, level.side),), tuple(marks), question, (order, lines))

    def render_images(self, spec: SceneSpec, scene: Scene) -> Sequence[Image.Image]:
        things, lines = scene.drawn
        return [draw_things(*scene.sizes[0], things, LOOKS[spec.look], lines)]


def _repeated(level: Level, aim: float, rng: random.Random) -> list[tuple[str, str, str]]:
    """Objects for counting: 1 to `level.most` of one colour or shape, each number as likely, and some others.

    The name is the colour or the shape, whichever is counted.
    """
    by_shape = not level.cell and rng.random() < 0.5
    wanted, *rest = rng.sample(SHAPES if by_shape else list(COLORS), len(SHAPES))
    named = [wanted] * (1 + int(aim * level.most)) + rng.choices(rest, k=rng.randint(1, 3))
    if by_shape:
        return [(rng.choice(list(COLORS)), name, name) for name in named]
    return [(name, rng.choice(SHAPES), name) for name in named]


FAMILY = StaticFamily()
