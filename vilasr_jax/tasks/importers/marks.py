"""Boxes and lines of a user's picture as a recorded conversation: drawn as the model will see them."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vilasr_jax.drawing import DrawingSettings, joined
from vilasr_jax.drawing.coordinates import Known, convert_prose, frame_of
from vilasr_jax.drawing.prompts import get_prompts
from vilasr_jax.drawing.sizes import Frame
from vilasr_jax.errors import DataError
from vilasr_jax.models import ModelFamily
from vilasr_jax.processing import image_size
from vilasr_jax.tasks.replay import replay
from vilasr_jax.tasks.rows import Row, Trace
from vilasr_jax.tasks.stored import DEFAULT_FAMILY, IMAGE_MARK, StoredRow, png_bytes
from vilasr_jax.tasks.trace_text import Corners, answer_turn, box_turn, line_turn

_SYNTAX = ("<think>", "</think>", "<answer>", "</answer>", "```", "Action:")
BY_DEFAULT = "The drawing shows the answer"  # the thought before an answer


@dataclass(frozen=True)
class Canvas:
    """How pictures are resized and drawn on: as in conversations of a model.

    Attributes:
      settings: of its conversations.
      min_pixels, max_pixels: the area of an image.
      family: of the model.
    """

    settings: DrawingSettings
    min_pixels: int
    max_pixels: int
    family: ModelFamily = DEFAULT_FAMILY

    def to_dict(self) -> dict[str, Any]:
        """Its values, for a note of what was drawn how."""
        settings = self.settings
        return {
            "prompt": get_prompts(settings.prompt).sha256,
            "style": str(settings.style),
            "tools": list(settings.tools),
            "coordinates": settings.coordinates,
            "min_pixels": self.min_pixels,
            "max_pixels": self.max_pixels,
        }


@dataclass(frozen=True)
class Marked:
    """A box or line, in pixels of its picture, or with `relative` in fractions of its sides.

    Attributes:
      where: what messages call it, such as "box 2".
      image: number of the picture, from 1.
      place: x1, y1, x2, y2.
      label: the text that is drawn at it.
    """

    where: str
    image: int
    place: tuple[float, ...]
    label: str
    relative: bool = False


@dataclass(frozen=True)
class Marks:
    """The boxes and lines of a question, and a thought before each of the turns that they become."""

    boxes: tuple[Marked, ...]
    lines: tuple[Marked, ...]
    thoughts: tuple[str, ...] = ()

    def record(self, row: StoredRow, canvas: Canvas) -> StoredRow:
        """The row with a conversation: boxes in one turn, lines in the next, then the answer.

        Raises:
          DataError: a place outside of its picture, a text that a turn can't hold, or coordinates in the
            question that can't be converted.
        """
        stored = [image_size(image) for image in row.images]
        plain = row.row(canvas.min_pixels, canvas.max_pixels, family=canvas.family)
        frames = [frame_of(image.size, canvas.settings.coordinates) for image in plain.images]
        messages = replay(Trace(plain, self._turns(plain, stored, frames)), canvas.settings, in_pixels=False)
        images = [part["image"] for m in messages for part in m["content"] if part["type"] == "image"]
        texts = tuple({"role": m["role"], "content": joined(m, IMAGE_MARK)} for m in messages)
        fields = {name: getattr(plain, name) for name in ("question", "options", "answer")}
        fields |= {"coordinates": canvas.family.coordinates, "actions": canvas.settings.actions}
        return dataclasses.replace(row, images=tuple(map(png_bytes, images)), messages=texts, **fields)

    def _turns(self, row: Row, stored: Sequence[Frame], frames: Sequence[Frame]) -> tuple[str, ...]:
        """The assistant's turns: coordinates of the pictures as `stored` become those of `frames` at once."""
        kinds = [(box_turn, self.boxes, "I mark"), (line_turn, self.lines, "I draw")]
        kinds = [kind for kind in kinds if kind[1]]
        if self.thoughts and len(self.thoughts) != len(kinds) + 1:
            raise DataError(f"thoughts has {len(self.thoughts)} texts; this row has {len(kinds) + 1} turns")
        if bad := [word for text in (*self.thoughts, row.answer) for word in _SYNTAX if word in text]:
            raise DataError(f"{bad[0]!r} can't be part of a thought or an answer")
        thoughts = self._thoughts(row, stored, frames)
        turns = []
        for number, (write, marks, verb) in enumerate(kinds):
            labels = _unique([mark.label for mark in marks])
            thought = thoughts[number] if thoughts else f"{verb} {', '.join(labels)}."
            places = [_place(mark, stored[mark.image - 1], frames[mark.image - 1]) for mark in marks]
            texts = [json.dumps(label, ensure_ascii=False)[1:-1] for label in labels]
            numbers = [mark.image for mark in marks]
            turns.append(write(f"{thought.strip()} ", list(zip(numbers, places, texts, strict=True))))
        last = thoughts[-1].strip().rstrip(".") if thoughts else BY_DEFAULT
        return (*turns, answer_turn(last, row.answer))

    def _thoughts(self, row: Row, stored: Sequence[Frame], frames: Sequence[Frame]) -> list[str]:
        """The thoughts about the resized pictures: coordinates of a box or line are those of its turn.

        Raises:
          DataError: one holds other coordinates or lengths, which belong to the picture as it was.
        """
        new = [image.size for image in row.images]
        marks = (*self.boxes, *self.lines)
        relative = any(mark.relative for mark in marks)
        if [*frames] == [*stored] and not relative:
            return [*self.thoughts]
        known: Known = {}
        for mark in marks:
            before, after = stored[mark.image - 1], frames[mark.image - 1]
            read = tuple(map(str, _place(mark, before, after)))
            for values in (mark.place, _in_picture(mark, before)):
                said = tuple(str(int(v)) if float(v).is_integer() else repr(v) for v in values)
                for first, end in ((0, 4), (0, 2), (2, 4)):
                    known.setdefault(said[first:end], set()).add(read[first:end])
        sizes = dict(zip(stored, new, strict=True))
        kept = new == [*stored] and not relative
        unit = [*frames] != new
        try:
            return [
                convert_prose(text, known, sizes, row.answer, lengths=kept, other_unit=unit)
                for text in self.thoughts
            ]
        except DataError as error:
            why = "" if kept else "; the picture is resized, so numbers would be wrong"
            raise DataError(f"thoughts: {error}{why}") from None


def _unique(labels: Sequence[str]) -> list[str]:
    """Labels of which none is there twice, as a second one would replace the first drawing."""
    seen: Counter[str] = Counter()
    found = []
    for label in labels:
        seen[label] += 1
        found.append(label if seen[label] == 1 else f"{label} {seen[label]}")
    return found


def _in_picture(mark: Marked, size: Frame) -> tuple[float, ...]:
    """Corners or ends in pixels of the picture as stored."""
    return tuple(value * size[i % 2] if mark.relative else value for i, value in enumerate(mark.place))


def _place(mark: Marked, old: Frame, new: Frame) -> Corners:
    """Corners or ends in the frame `new`, of which the model writes them."""
    x1, y1, x2, y2 = _in_picture(mark, old)
    inside = all(0 <= x <= old[0] for x in (x1, x2)) and all(0 <= y <= old[1] for y in (y1, y2))
    said = f"{mark.where} {[*mark.place]}"
    if not inside:
        raise DataError(f"{said} reaches out of the picture, which is {old[0]} x {old[1]}")
    if mark.where.startswith("box") and not (x1 < x2 and y1 < y2):
        raise DataError(f"{said}: x1, y1 must be the top left corner, x2, y2 the bottom right one")
    if (x1, y1) == (x2, y2):
        raise DataError(f"{said} begins where it ends")
    values = (x1 * new[0] / old[0], y1 * new[1] / old[1], x2 * new[0] / old[0], y2 * new[1] / old[1])
    left, top, right, bottom = (round(value) for value in values)
    box = mark.where.startswith("box")
    if (left, top) == (right, bottom) or (box and (left == right or top == bottom)):
        raise DataError(f"{said}: nothing is left of it at the size that the model sees")
    return left, top, right, bottom
