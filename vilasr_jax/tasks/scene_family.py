"""Families whose rows are a scene and a question about it, with the drawings that answer it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

from PIL import Image

from vilasr_jax.drawing import DrawingSession, DrawingSettings
from vilasr_jax.errors import ConfigError
from vilasr_jax.tasks.family import Family
from vilasr_jax.tasks.objects import COLORS, LOOKS, SHAPES, frame
from vilasr_jax.tasks.rows import Row, Trace
from vilasr_jax.tasks.sides import SIDE, fitted_level
from vilasr_jax.tasks.splits import check_split, content_hash, first_in_split
from vilasr_jax.tasks.tokenizer_phrases import ERRORS, LETTERS, SHORT, sample_texts
from vilasr_jax.tasks.trace_text import (
    GOOD,
    NAMED_PIECES,
    WRONG,
    Corners,
    answer_turn,
    box_turn,
    line_turn,
    said,
)

# Texts of a perception row's requests, and the answer where there is nothing to draw.
BOX, EVERYTHING, IN_IMAGE = "Box ", "everything", " in image "
LINES, TO = "Draw lines from ", " to "
NOTHING = "nothing"
# Levels for small models that learn to see here. Their images have a border, as a reference for places,
# and a drawing's label comes before its place: few layers can find an object after writing its name.
TINY = ("tiny", "tiny_wide")
Named = TypeVar("Named")
MOST_IMAGES = 4  # images of one scene in a perception row


@dataclass(frozen=True)
class Mark:
    """One drawing: the image it is on, its corners or ends in pixels, its label (used once an image)."""

    index: int
    corners: Corners
    label: str


@dataclass(frozen=True)
class Step:
    """One turn of the expert: its thought, then boxes (or lines)."""

    think: str
    marks: tuple[Mark, ...]
    lines: bool = False

    def turn(self, judged: str = "", named_first: bool = False) -> str:
        """The turn as text; `judged` is said first, of the drawing before."""
        write = line_turn if self.lines else box_turn
        return write(judged + self.think, [(m.index, m.corners, m.label) for m in self.marks], named_first)


@dataclass(frozen=True)
class SceneQuestion:
    """A question with its answer, the expert's drawings, and the conclusion from them."""

    kind: str
    question: str
    answer: str
    steps: tuple[Step, ...]
    conclusion: str  # without a full stop
    options: tuple[str, ...] = ()
    question_type: str = "multiple choice"


@dataclass(frozen=True)
class Scene:
    """What an image (or several) shows, and a question about it. `content` decides the split."""

    content: Any
    sizes: tuple[tuple[int, int], ...]  # width and height of each image
    places: tuple[Mark, ...]  # every object that can be seen, boxed
    question: SceneQuestion
    drawn: Any = None  # what `render_images` draws
    unit: int = SIDE  # pixels a side of a token of the model


@dataclass(frozen=True)
class SceneSpec:
    """Everything that a scene's row depends on besides its seed."""

    level: str = "easy"
    kinds: tuple[str, ...] = ()  # of question; none: all of the level
    look: str = "plain"
    split: str = "train"
    unit: int = field(default=SIDE, repr=False)  # pixels a side of a token; scenes are the same, scaled


@dataclass(frozen=True)
class FittedSection:
    """A job's settings of a family for a model with tokens of another side; see `SceneFamily.fitted`."""

    level: str
    kinds: tuple[str, ...]
    unit: int


class SceneFamily(Family):
    """A family that proposes scenes and draws them: give `levels`, `propose` and `render_images`.

    A level has `kinds`, its kinds of question. The levels are in order of difficulty: rows of
    the next one are the "harder" ones out of distribution.
    """

    Spec = SceneSpec
    levels: ClassVar[Mapping[str, Any]]
    data_type: ClassVar[str] = "vqa"
    lines: ClassVar[bool] = False  # whether the expert also draws lines between objects
    phrases = (
        *Family.phrases,
        *NAMED_PIECES,
        *COLORS,
        *(f" {shape}" for shape in SHAPES),
        *(f"{letter}. " for letter in LETTERS),
        BOX,
        LINES,
        f"\n{BOX}",
        f"\n{LINES}",
        EVERYTHING,
        IN_IMAGE,
        TO,
        NOTHING,
        "?",
        "? ",
        ".",
        " Letter?",
        " Number?",
    )

    def spec(self, section: Any, split: str, **changes: Any) -> SceneSpec:
        spec = super().spec(section, split, **changes)
        check_split(self.name, spec.split)
        self._check("level", [spec.level], self.levels)
        self._check("look", [spec.look], LOOKS)
        self._check(f"kind of question at level {spec.level!r}", spec.kinds, self.levels[spec.level].kinds)
        return spec

    def fitted(self, section: Any, side: int) -> Any:
        """Images of some tokens of another family become images of as many tokens of this one."""
        if SIDE % side == 0:
            return section
        return FittedSection(section.level, section.kinds, side)

    def level(self, spec: SceneSpec) -> Any:
        """The level of a specification, its lengths those of the model."""
        return fitted_level(self.levels[spec.level], spec.unit)

    def _check(self, what: str, given: Iterable[str], known: Iterable[str]) -> None:
        for name in given:
            if name not in known:
                raise ConfigError(f"{self.name} has no {what} {name!r}; there are {', '.join(known)}")

    def ood(self, section: Any) -> dict[str, Sequence[SceneSpec]]:
        looks = [look for look in LOOKS if look != "plain"]
        found: dict[str, Sequence[SceneSpec]]
        found = {"other look": tuple(self.spec(section, "ood", look=look) for look in looks)}
        names = list(self.levels)
        after = names[names.index(self.spec(section, "ood").level) + 1 :]
        if after:
            found["harder"] = (self.spec(section, "ood", level=after[0]),)
        return found

    def propose(self, spec: SceneSpec, kind: str, aim: float, rng: random.Random) -> Scene | None:
        """A random scene with a question of this kind, or None when that would be ambiguous.

        `aim` (0 to 1) is the same for all proposals of a row. A family that chooses the answer by it leaves
        the answers evenly distributed, even if proposals with some answers are refused more often.
        """
        raise NotImplementedError

    def render_images(self, spec: SceneSpec, scene: Scene) -> Sequence[Image.Image]:
        """The scene's images (RGB, of sizes that the model reads)."""
        raise NotImplementedError

    def images(self, spec: SceneSpec, scene: Scene) -> Sequence[Image.Image]:
        """The scene's images as they are shown, at the tiny levels framed."""
        images = self.render_images(spec, scene)
        return [frame(image, LOOKS[spec.look]) for image in images] if spec.level in TINY else images

    def scene(self, spec: SceneSpec, seed: int) -> Scene:
        """The scene of a seed; the look of its images does not change it."""
        rng = random.Random(f"{self.name} {replace(spec, look='plain')!r} {seed}")
        kind, aim = rng.choice(spec.kinds or self.levels[spec.level].kinds), rng.random()
        scene = first_in_split(
            lambda: self.propose(spec, kind, aim, rng), lambda scene: content_hash(scene.content), spec.split
        )
        return replace(scene, unit=spec.unit)

    def row(self, spec: SceneSpec, seed: int) -> Row:
        scene = self.scene(spec, seed)
        question = scene.question
        return Row(
            id=f"{self.name}-{spec.split}-{spec.level}-{spec.look}-{seed}",
            question=question.question,
            answer=question.answer,
            question_type=question.question_type,
            options=question.options,
            images=tuple(self.images(spec, scene)),
            data_type=self.data_type,
            meta={
                "family": self.name,
                "kind": question.kind,
                "level": spec.level,
                "hash": content_hash(scene.content),
            },
            scene=scene,
        )

    def expert_trace(self, row: Row, rng: random.Random, slip: bool = False) -> Trace:
        question: SceneQuestion = row.scene.question
        slip_at = rng.randrange(len(question.steps)) if slip else -1
        turns, judged, named = [], "", row.meta["level"] in TINY
        for number, step in enumerate(question.steps):
            if number == slip_at:
                bad = rng.randrange(len(step.marks))
                marks = list(step.marks)
                size = row.images[marks[bad].index - 1].size
                marks[bad] = misplaced(marks[bad], step.lines, size, rng, row.scene.unit)
                turns.append(replace(step, marks=tuple(marks)).turn(judged, named))
                judged, step = WRONG, replace(step, marks=(step.marks[bad],))
            turns.append(step.turn(judged, named))
            judged = GOOD
        turns.append(answer_turn(judged + question.conclusion, question.answer))
        return Trace(row, tuple(turns), (slip_at,) if slip else ())

    def corpus(self, section: Any, settings: DrawingSettings = SHORT) -> Iterator[str]:
        yield from map(str, range(max(64, settings.max_images + 1)))
        yield from ERRORS
        harder = self.ood(section).get("harder", ())
        for spec in (self.spec(section, "train"), *harder):
            yield from sample_texts(self, spec, settings, rows=24)

    def perception(self, spec: SceneSpec, seed: int, settings: DrawingSettings) -> list[dict[str, Any]]:
        """A conversation of requests about one scene, each answered by what the expert would draw.

        In random order: boxes in each image (at most `MOST_IMAGES`), and lines.
        """
        scene = self.scene(spec, seed)
        images = self.images(spec, scene)
        rng = random.Random(f"perception {seed}")
        shown = rng.sample(range(1, len(images) + 1), min(len(images), MOST_IMAGES))
        named = spec.level in TINY
        wanted = [_boxes(scene, index, named, rng) for index in shown]
        if self.lines:
            wanted += _lines(scene, shown[0], named, rng)
        rng.shuffle(wanted)
        (question, answer), *others = wanted
        session = DrawingSession(
            images, question, question_type="free-form", settings=settings, video=self.data_type == "video"
        )
        messages = [*session.messages, said("assistant", session.as_written(answer))]
        for question, answer in others:
            messages += [said("user", question), said("assistant", session.as_written(answer))]
        return messages


def _boxes(scene: Scene, index: int, named_first: bool, rng: random.Random) -> tuple[str, str]:
    """A request for the boxes of an image, by names in random order or of everything, and the drawing."""
    marks = sorted(
        (mark for mark in scene.places if mark.index == index),
        key=lambda mark: (mark.label, mark.corners[1], mark.corners[0]),
    )
    names = list(dict.fromkeys(mark.label for mark in marks))
    what = EVERYTHING
    if names and rng.random() < 0.5:
        rng.shuffle(names)
        what = ", ".join(names)
    drawn = [mark for name in names for mark in marks if mark.label == name]
    answer = Step("", tuple(drawn)).turn("", named_first) if drawn else NOTHING
    return f"{BOX}{what}{IN_IMAGE}{index}.", answer


def _lines(scene: Scene, index: int, named_first: bool, rng: random.Random) -> list[tuple[str, str]]:
    """A request for lines from one object of an image to the others, where two have names of their own."""
    marks = [mark for mark in scene.places if mark.index == index]
    labels = [mark.label for mark in marks]
    marks = [mark for mark in marks if labels.count(mark.label) == 1]
    if len(marks) < 2:
        return []
    start, *ends = rng.sample(marks, len(marks))
    drawn = tuple(Mark(index, (*_middle(start), *_middle(end)), end.label) for end in ends)
    names = ", ".join(end.label for end in ends)
    answer = Step("", drawn, lines=True).turn("", named_first)
    return [(f"{LINES}{start.label}{TO}{names}{IN_IMAGE}{index}.", answer)]


def _middle(mark: Mark) -> tuple[int, int]:
    x1, y1, x2, y2 = mark.corners
    return (x1 + x2) // 2, (y1 + y2) // 2


def choice(
    rng: random.Random, right: str, wrong: Iterable[str], order: Iterable[str] = ()
) -> tuple[tuple[str, ...], str]:
    """Options ("A. red", ...), and the right one of them; at most three wrong ones.

    The order is random, or that of `order`.
    """
    wrong, order = [text for text in wrong if text != right], list(order)
    said = [right, *rng.sample(wrong, min(len(wrong), len(LETTERS) - 1))]
    if order:
        said.sort(key=order.index)
    else:
        rng.shuffle(said)
    options = tuple(f"{letter}. {text}" for letter, text in zip(LETTERS, said, strict=False))
    return options, options[said.index(right)]


def offered(options: Sequence[str], named: Mapping[str, Named]) -> list[tuple[str, Named]]:
    """The options in their order, each with what it names."""
    return [(option, named[option.partition(". ")[2]]) for option in options]


def misplaced(mark: Mark, line: bool, size: tuple[int, int], rng: random.Random, unit: int = SIDE) -> Mark:
    """The mark in a wrong place: a box moved by its own size, a line with its end moved by `unit` pixels,
    inside the image."""
    (x1, y1, x2, y2), (width, height) = mark.corners, size
    wide, high = (unit, unit) if line else (x2 - x1, y2 - y1)
    places = []
    for dx, dy in ((wide, 0), (-wide, 0), (0, high), (0, -high), (wide // 2, 0), (-(wide // 2), 0)):
        moved = (x1, y1, x2 + dx, y2 + dy) if line else (x1 + dx, y1 + dy, x2 + dx, y2 + dy)
        inside = 0 <= min(moved[0::2]) and max(moved[0::2]) <= width
        inside = inside and 0 <= min(moved[1::2]) and max(moved[1::2]) <= height
        if inside and moved != mark.corners and moved[:2] != moved[2:]:
            places.append(moved)
    shrunk = (x1 + wide // 4, y1 + high // 4, x2, y2)  # a box as large as the image shrinks
    return replace(mark, corners=rng.choice(places[:4] or [shrunk]))
