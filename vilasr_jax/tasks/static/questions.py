"""Questions about an image of objects, each None where it would be ambiguous."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from vilasr_jax.tasks.objects import COLORS, Thing, distance
from vilasr_jax.tasks.scene_family import Mark, SceneQuestion, Step, choice, offered
from vilasr_jax.tasks.static.scene import Level

SIDES = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}
ENDS = {"furthest left": (-1, 0), "furthest right": (1, 0), "highest": (0, -1), "lowest": (0, 1)}
RELATION, SEEN_FROM = "Where is ", ", seen from "
WHICH_IS = "Which is "
NEAREST, BETWEEN, AND = "Which is nearest to ", "Which is between ", " and "
COUNT, ARE = "How many are ", "There are "
LARGEST, SMALLEST = "the largest", "the smallest"
DISTANCE = "How many pixels are between the centres of "
PHRASES = (
    f"\n{RELATION}",
    SEEN_FROM,
    f"\n{WHICH_IS}",
    f"\n{NEAREST}",
    f"\n{BETWEEN}",
    AND,
    f"\n{COUNT}",
    ARE,
    LARGEST,
    SMALLEST,
    f"\n{DISTANCE}",
    "the ",
    *SIDES,
    *ENDS,
)


def the(thing: Thing) -> str:
    """How a question names an object: "red", "the red star"."""
    return f"the {thing.name}" if " " in thing.name else thing.name


def box(thing: Thing, level: Level, label: str = "") -> Mark:
    """The box of an object: its cell where there are cells."""
    if level.cell:
        left, top = (int(c // level.cell) * level.cell for c in (thing.x, thing.y))
        return Mark(1, (left, top, left + level.cell, top + level.cell), label or thing.name)
    return Mark(1, thing.box(level.side, level.side), label or thing.name)


def line(a: Thing, b: Thing) -> Mark:
    """A line between two centres, labelled as its end."""
    return Mark(1, (*a.point, *b.point), b.name)


def make_question(
    kind: str, things: Sequence[Thing], level: Level, rng: random.Random
) -> SceneQuestion | None:
    """A question of this kind; the first objects are the ones it is about."""
    return _QUESTIONS[kind](list(things), level, rng)


def _relation(things: list[Thing], level: Level, rng: random.Random) -> SceneQuestion | None:
    a, b = things[:2]
    dx, dy = a.x - b.x, a.y - b.y
    if max(abs(dx), abs(dy)) < 2 * min(abs(dx), abs(dy)) or max(abs(dx), abs(dy)) < a.radius + b.radius:
        return None
    side = max(SIDES, key=lambda name: SIDES[name][0] * dx + SIDES[name][1] * dy)
    options, said = choice(rng, side, SIDES, SIDES if level.cell else ())
    step = Step("", (box(a, level), box(b, level)))
    return SceneQuestion(
        "relation", f"{RELATION}{the(a)}{SEEN_FROM}{the(b)}?", said[0], (step,), said, options
    )


def _furthest(things: list[Thing], level: Level, rng: random.Random) -> SceneQuestion | None:
    name, (dx, dy) = rng.choice(list(ENDS.items()))
    ordered = sorted(things, key=lambda thing: -(dx * thing.x + dy * thing.y))
    margin = (ordered[0].x - ordered[1].x) * dx + (ordered[0].y - ordered[1].y) * dy
    if margin < max(0.25 * level.cell, 0.02 * level.side):
        return None
    return _pick("furthest", f"{WHICH_IS}{name}?", ordered[0], ordered[1:], level, rng)


def _nearest(things: list[Thing], level: Level, rng: random.Random) -> SceneQuestion | None:
    a = things[0]
    ordered = sorted(things[1:], key=lambda thing: distance(a, thing))
    if distance(a, ordered[1]) < 1.2 * distance(a, ordered[0]):
        return None
    options, said = choice(rng, ordered[0].name, [thing.name for thing in ordered[1:]])
    shown = offered(options, {thing.name: thing for thing in ordered})
    lines = tuple(replace(line(a, thing), label=option) for option, thing in shown)
    return SceneQuestion(
        "nearest", f"{NEAREST}{the(a)}?", said[0], (Step("", lines, lines=True),), said, options
    )


def _between(things: list[Thing], level: Level, rng: random.Random) -> SceneQuestion | None:
    a, b, middle, *others = things
    length = distance(a, b)
    if length < 3 * (a.radius + b.radius) / 2 + 2 * middle.radius:
        return None
    for other in others:
        along = ((other.x - a.x) * (b.x - a.x) + (other.y - a.y) * (b.y - a.y)) / length**2
        across = abs((other.x - a.x) * (b.y - a.y) - (other.y - a.y) * (b.x - a.x)) / length
        if -0.1 < along < 1.1 and across < 2 * other.radius + 4:
            return None
    options, said = choice(rng, middle.name, [other.name for other in others])
    steps = (Step("", (line(a, b),), lines=True), Step("", (box(middle, level),)))
    return SceneQuestion("between", f"{BETWEEN}{the(a)}{AND}{the(b)}?", said[0], steps, said, options)


def _count(things: list[Thing], level: Level, rng: random.Random) -> SceneQuestion | None:
    wanted = things[0].name  # a colour or a shape
    found = [thing for thing in things if thing.name == wanted]
    found.sort(key=lambda thing: (round(thing.y), thing.x))
    step = Step("", tuple(box(thing, level, f"{wanted} {k}") for k, thing in enumerate(found, 1)))
    said, answer = wanted if wanted in COLORS else f"{wanted}s", str(len(found))
    return SceneQuestion("count", f"{COUNT}{said}?", answer, (step,), ARE + answer, question_type="numerical")


def _size(things: list[Thing], level: Level, rng: random.Random) -> SceneQuestion | None:
    least = rng.random() < 0.5
    ordered = sorted(things, key=lambda thing: thing.radius if least else -thing.radius)
    ratio = ordered[0].radius / ordered[1].radius
    if max(ratio, 1 / ratio) < 1.15:
        return None
    wrong = rng.sample(ordered[1:], min(3, len(ordered) - 1))
    question = f"{WHICH_IS}{SMALLEST if least else LARGEST}?"
    return _pick("size", question, ordered[0], wrong, level, rng)


def _distance(things: list[Thing], level: Level, rng: random.Random) -> SceneQuestion | None:
    a, b = things[:2]
    answer = str(round(distance(a, b)))
    step = Step("", (line(a, b),), lines=True)
    question = f"{DISTANCE}{the(a)}{AND}{the(b)}?"
    return SceneQuestion(
        "distance", question, answer, (step,), f"{answer} pixels", question_type="regression"
    )


def _pick(
    kind: str, question: str, right: Thing, wrong: Sequence[Thing], level: Level, rng: random.Random
) -> SceneQuestion:
    """The offered objects are boxed in the order of the options, by whose letters they are called."""
    options, said = choice(rng, right.name, [thing.name for thing in wrong])
    shown = offered(options, {thing.name: thing for thing in [right, *wrong]})
    step = Step("", tuple(box(thing, level, option) for option, thing in shown))
    return SceneQuestion(kind, question, said[0], (step,), said, options)


_QUESTIONS: dict[str, Callable[[list[Thing], Level, random.Random], SceneQuestion | None]] = {
    "relation": _relation,
    "furthest": _furthest,
    "nearest": _nearest,
    "between": _between,
    "count": _count,
    "size": _size,
    "distance": _distance,
}
