"""Questions about a room seen from several places, each None where it would be ambiguous."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations

from vilasr_jax.tasks.glyphs import plate_size
from vilasr_jax.tasks.multiview.room import Box, Camera, Level, Solid, box_of, covered, rounded
from vilasr_jax.tasks.scene_family import Mark, SceneQuestion, Step, choice, offered
from vilasr_jax.tasks.tokenizer_phrases import LETTERS

SAME = "Which letter marks the thing in the last image that an arrow marks in image 1?"
PLACE, FACE, WHERE = "Someone stands at ", " and looks at ", ". Where do they see "
SIDES = {"left": 90, "right": -90, "behind": 180, "in front": 0}  # degrees from where they look
CAMERA = "Which way did the camera move from image 1 to image 2?"
MOVES = ("left", "right", "forward", "back")
MOTION = (
    "How did the camera move from image 1 to image 2? Give metres and degrees, like "
    "move_right:0.3,move_forward:0.5,rotate_left:20."
)
CLOSEST = "Which is closest in the room to "
DISTANCE, AND = "How many metres are between the middles of ", " and "
UNIT = "? The floor's squares are 1 metre."
PHRASES = (
    f"\n{SAME}",
    f"\n{PLACE}",
    FACE,
    WHERE,
    f"\n{CAMERA}",
    f"\n{MOTION}",
    f"\n{CLOSEST}",
    f"\n{DISTANCE}",
    AND,
    UNIT,
    "the ",
    *SIDES,
    *MOVES,
    " cube",
    " cylinder",
    " cone",
    " ball",
    " images",
)


@dataclass
class Views:
    """Solids and the cameras that see them; the question is about the first ones.

    `marks` is what a question has drawn into view number: solid number -> letter, "" for an arrow.
    """

    solids: Sequence[Solid]
    cameras: Sequence[Camera]
    level: Level
    marks: dict[int, dict[int, str]] = field(default_factory=dict)

    @cached_property
    def boxes(self) -> list[list[Box]]:
        """Every solid's box in every view."""
        return [[box_of(solid, camera, self.level) for solid in self.solids] for camera in self.cameras]

    @property
    def clear(self) -> bool:
        """Whether every view shows every solid, and none hides much of another."""
        side, hidden = self.level.side, self.level.hidden
        return all(
            all(0 <= min(box) and max(box) <= side for box in seen)
            and all(covered(a, b) <= hidden for a, b in combinations(seen, 2))
            for seen in self.boxes
        )

    def box(self, view: int, number: int, label: str = "") -> Mark:
        """A solid's box in a view (both from 0)."""
        corners = rounded(self.boxes[view][number], self.level)
        return Mark(view + 1, corners, label or self.solids[number].name)

    def line(self, a: int, b: int) -> Mark:
        """A line from one solid's box to another's in the first view, labelled as its end."""
        corners = [rounded(self.boxes[0][number], self.level) for number in (a, b)]
        ends = [((x1 + x2) // 2, (y1 + y2) // 2) for x1, y1, x2, y2 in corners]
        return Mark(1, (*ends[0], *ends[1]), self.solids[b].name)

    def gap(self, a: int, b: int) -> float:
        """Metres between two solids' middles."""
        return math.hypot(self.solids[a].x - self.solids[b].x, self.solids[a].y - self.solids[b].y)


def make_question(kind: str, views: Views, aim: float, rng: random.Random) -> SceneQuestion | None:
    """A question of this kind, or None where it would be ambiguous."""
    return _QUESTIONS[kind](views, aim, rng)


def the(solid: Solid) -> str:
    """How a question names a solid."""
    return f"the {solid.name}" if " " in solid.name else solid.name


def _same(views: Views, aim: float, rng: random.Random) -> SceneQuestion | None:
    twins = [k for k, solid in enumerate(views.solids) if k and solid.name == views.solids[0].name]
    others = [k for k in range(1, len(views.solids)) if k not in twins]
    lettered = [0, *(twins + rng.sample(others, len(others)))[: len(LETTERS) - 1]]
    rng.shuffle(lettered)
    letters = dict(zip(lettered, LETTERS, strict=False))
    last = len(views.cameras) - 1
    tops = [((x1 + x2) / 2, y1) for x1, y1, x2, _ in (views.boxes[last][k] for k in lettered)]
    wide, high = plate_size(views.level.side)
    if any(abs(a[0] - b[0]) < wide and abs(a[1] - b[1]) < high for a, b in combinations(tops, 2)):
        return None  # one letter would hide another
    views.marks.update({0: {0: ""}, last: letters})
    steps = (Step("", (views.box(0, 0),)), Step("", (views.box(last, 0),)))
    answer = letters[0]
    return SceneQuestion("same", SAME, answer, steps, answer, tuple(LETTERS[: len(letters)]))


def _side(views: Views, aim: float, rng: random.Random) -> SceneQuestion | None:
    a, b, c = views.solids[:3]
    ahead = math.atan2(b.y - a.y, b.x - a.x)
    turn = math.degrees(math.atan2(c.y - a.y, c.x - a.x) - ahead)
    side = list(SIDES)[int(aim * len(SIDES))]
    off = abs((turn - SIDES[side] + 180) % 360 - 180)
    if off > (40 if side in ("left", "right") else 25):
        return None
    options, said = choice(rng, side, SIDES, SIDES if views.level.spots else ())
    step = Step("", (views.line(0, 1), views.line(0, 2)), lines=True)
    question = f"{PLACE}{the(a)}{FACE}{the(b)}{WHERE}{the(c)}?"
    return SceneQuestion("side", question, said[0], (step,), said, options)


def _camera(views: Views, aim: float, rng: random.Random) -> SceneQuestion:
    move = MOVES[int(aim * len(MOVES))]
    options, said = choice(rng, move, MOVES, MOVES if views.level.spots else ())
    step = Step("", (views.box(0, 0), views.box(1, 0)))
    return SceneQuestion("camera", CAMERA, said[0], (step,), said, options)


def _motion(views: Views, aim: float, rng: random.Random) -> SceneQuestion:
    one, two = views.cameras[:2]
    right, up, forward, turn = motion_between(one, two)
    axes = (
        ("move_right", "move_left", right),
        ("move_up", "move_down", up),
        ("move_forward", "move_backward", forward),
        ("rotate_left", "rotate_right", turn),
    )
    said = [f"{plus if value > 0 else minus}:{abs(value):g}" for plus, minus, value in axes if value]
    answer = ",".join(said)
    marks = tuple(views.box(view, number) for number in (0, 1) for view in (0, 1))
    return SceneQuestion("motion", MOTION, answer, (Step("", marks),), answer, question_type="vci")


def motion_between(one: Camera, two: Camera) -> tuple[float, float, float, float]:
    """Metres moved to the first camera's right, up and forward, and degrees turned left; rounded."""
    yaw = math.radians(one.yaw)
    dx, dy = two.x - one.x, two.y - one.y
    right, forward = dx * math.sin(yaw) - dy * math.cos(yaw), dx * math.cos(yaw) + dy * math.sin(yaw)
    turn = (two.yaw - one.yaw + 180) % 360 - 180
    right, up, forward, turn = (round(value, 1) + 0.0 for value in (right, two.z - one.z, forward, turn))
    return right, up, forward, turn


def _closest(views: Views, aim: float, rng: random.Random) -> SceneQuestion | None:
    ordered = sorted(range(1, len(views.solids)), key=lambda k: views.gap(0, k))
    if views.gap(0, ordered[1]) < 1.2 * views.gap(0, ordered[0]):
        return None
    options, said = choice(rng, views.solids[ordered[0]].name, [views.solids[k].name for k in ordered[1:]])
    shown = offered(options, {solid.name: k for k, solid in enumerate(views.solids)})
    lines = tuple(replace(views.line(0, k), label=option) for option, k in shown)
    question = f"{CLOSEST}{the(views.solids[0])}?"
    return SceneQuestion("closest", question, said[0], (Step("", lines, lines=True),), said, options)


def _distance(views: Views, aim: float, rng: random.Random) -> SceneQuestion:
    answer = f"{views.gap(0, 1):.1f}"
    question = f"{DISTANCE}{the(views.solids[0])}{AND}{the(views.solids[1])}{UNIT}"
    step = Step("", (views.line(0, 1),), lines=True)
    return SceneQuestion(
        "distance", question, answer, (step,), f"{answer} metres", question_type="regression"
    )


_QUESTIONS: dict[str, Callable[[Views, float, random.Random], SceneQuestion | None]] = {
    "same": _same,
    "side": _side,
    "camera": _camera,
    "motion": _motion,
    "closest": _closest,
    "distance": _distance,
}
