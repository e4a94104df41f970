"""Questions about a video, each None where it would be ambiguous. The frame is the index of the image."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vilasr_jax.tasks.objects import Thing
from vilasr_jax.tasks.scene_family import Mark, SceneQuestion, Step, choice, offered
from vilasr_jax.tasks.video.scene import WAYS, Level, Mover

FIRST, LAST = "Which appears first?", "Which appears last?"
MOVES = "Which way does it move: "
COUNT, TOTAL, ARE = "How many are in frame ", "How many different ones appear in all?", "There are "
GONE = "On which side of the picture must it be in the last frame: "
SIDES = {"left": "left", "right": "right", "up": "above", "down": "below"}  # of a way out
BEYOND = "How many pixels beyond the edge must its centre be in the last frame: "
PHRASES = (
    f"\n{FIRST}",
    f"\n{LAST}",
    f"\n{MOVES}",
    f"\n{COUNT}",
    f"\n{TOTAL}",
    ARE,
    f"\n{GONE}",
    f"\n{BEYOND}",
    *WAYS,
    "above",
    "below",
    " frames",
)


@dataclass(frozen=True)
class Video:
    """The objects of a video; the question is about the first."""

    movers: Sequence[Mover]
    frames: int
    level: Level

    def seen(self, mover: Mover) -> list[int]:
        return mover.seen(self.frames, self.level.side)

    def box(self, mover: Mover, frame: int, label: str = "") -> Mark:
        """The object's box in a frame: its cell where there are cells."""
        return Mark(frame, thing_box(mover.at(frame), self.level), label or mover.thing.name)


def thing_box(thing: Thing, level: Level) -> tuple[int, int, int, int]:
    """An object's box, inside the image."""
    if not level.cell:
        return thing.box(level.side, level.side)
    left, top = (int(c // level.cell) * level.cell for c in (thing.x, thing.y))
    return left, top, left + level.cell, top + level.cell


def make_question(kind: str, video: Video, aim: float, rng: random.Random) -> SceneQuestion | None:
    """A question of this kind, or None where it would be ambiguous."""
    return _QUESTIONS[kind](video, aim, rng)


def _order(video: Video, aim: float, rng: random.Random) -> SceneQuestion | None:
    last = aim < 0.5
    movers = sorted(video.movers, key=lambda mover: -mover.since if last else mover.since)
    if movers[0].since == movers[1].since:
        return None
    options, said = choice(rng, movers[0].thing.name, [mover.thing.name for mover in movers[1:]])
    shown = offered(options, {mover.thing.name: mover for mover in movers})
    step = Step("", tuple(video.box(mover, mover.since, option) for option, mover in shown))
    return SceneQuestion("order", LAST if last else FIRST, said[0], (step,), said, options)


def _direction(video: Video, aim: float, rng: random.Random) -> SceneQuestion:
    mover = video.movers[0]
    first, *_, last = video.seen(mover)
    way = _way(mover)
    options, said = choice(rng, way, WAYS, WAYS if video.level.cell else ())
    step = Step("", (video.box(mover, first), video.box(mover, last)))
    return SceneQuestion("direction", f"{MOVES}{mover.thing.name}?", said[0], (step,), said, options)


def _count(video: Video, aim: float, rng: random.Random) -> SceneQuestion | None:
    frame = rng.randint(1, video.frames)
    shown = [mover for mover in video.movers if frame in video.seen(mover)]
    if len(shown) != 1 + int(aim * len(video.movers)):  # each number as likely
        return None
    step = Step("", tuple(video.box(mover, frame) for mover in sorted(shown, key=lambda m: m.thing.name)))
    answer = str(len(shown))
    return SceneQuestion(
        "count", f"{COUNT}{frame}?", answer, (step,), ARE + answer, question_type="numerical"
    )


def _total(video: Video, aim: float, rng: random.Random) -> SceneQuestion:
    movers = sorted(video.movers, key=lambda mover: mover.since)
    step = Step("", tuple(video.box(mover, mover.since) for mover in movers))
    answer = str(len(movers))
    return SceneQuestion("total", TOTAL, answer, (step,), ARE + answer, question_type="numerical")


def _gone(video: Video, aim: float, rng: random.Random) -> SceneQuestion:
    mover = video.movers[0]
    side = SIDES[_way(mover)]
    sides = SIDES.values()
    options, said = choice(rng, side, sides, sides if video.level.cell else ())
    return SceneQuestion("gone", f"{GONE}{mover.thing.name}?", said[0], (_last_two(video),), said, options)


def _beyond(video: Video, aim: float, rng: random.Random) -> SceneQuestion | None:
    mover, side = video.movers[0], video.level.side
    thing = mover.at(video.frames)
    out = sorted(max(-c, c - side) for c in (thing.x, thing.y))
    if out[0] > -2:  # beyond a corner
        return None
    answer = str(round(out[1]))
    question = f"{BEYOND}{mover.thing.name}?"
    steps, said = (_last_two(video),), f"{answer} pixels"
    return SceneQuestion("beyond", question, answer, steps, said, question_type="regression")


def _last_two(video: Video) -> Step:
    mover = video.movers[0]
    return Step("", tuple(video.box(mover, frame) for frame in video.seen(mover)[-2:]))


def _way(mover: Mover) -> str:
    return max(WAYS, key=lambda name: WAYS[name][0] * mover.dx + WAYS[name][1] * mover.dy)


_QUESTIONS: dict[str, Callable[[Video, float, random.Random], SceneQuestion | None]] = {
    "order": _order,
    "direction": _direction,
    "count": _count,
    "total": _total,
    "gone": _gone,
    "beyond": _beyond,
}
