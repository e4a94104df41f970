"""Rows and traces: the data that every task family gives to training, rollouts and evaluation."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from PIL import Image

from vilasr_jax.drawing import DrawingSession, DrawingSettings
from vilasr_jax.tasks.options import lettered

T_co = TypeVar("T_co", covariant=True)
TEXT_FIELDS = ("id", "question", "answer", "question_type", "data_type")  # of a `Row`, in files
VIDEO_TYPES = ("video", "spatial_r1")  # data types whose images are a video's frames


class Source(Protocol[T_co]):
    """Items by number, from 0: rows, stored rows or training examples. Lists are sources, too."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> T_co: ...


@dataclass(frozen=True)
class Row:
    """One question about some images. `images` are RGB, already resized for the model."""

    id: str
    question: str
    answer: str
    question_type: str  # "multiple choice", "numerical", "regression", "vci" (view change) or "free-form"
    options: tuple[str, ...]
    images: tuple[Image.Image, ...]
    data_type: str  # "maze", "vqa", "spatial_r1" or "video"
    meta: dict[str, Any] = field(default_factory=dict)  # plain values, stored with the row
    scene: Any = None  # the generator's ground truth; not stored
    # Identifies the row in its source: (family, seed), or ("data.questions", number) of a stored row.
    source: tuple[str, int] | None = field(default=None, compare=False)
    seconds: tuple[float, ...] = ()  # times of a video's frames, where they are known

    def session(self, settings: DrawingSettings) -> DrawingSession:
        """A fresh conversation about this row."""
        return DrawingSession(
            self.images,
            self.question,
            question_type=self.question_type,
            options=self.options,
            settings=settings,
            video=self.data_type in VIDEO_TYPES,
            seconds=self.seconds,
        )


def question_row(
    images: Sequence[Image.Image],
    question: str,
    options: Sequence[str],
    data_type: str,
    id: str = "question",
    seconds: Sequence[float] = (),
) -> Row:
    """A user's question as a row without an answer; with `options`, which get letters, it is multiple choice.

    Raises:
      DataError: more than 26 options.
    """
    kind = "multiple choice" if options else "free-form"
    letters = lettered(options)[0]
    return Row(id, question, "", kind, letters, tuple(images), data_type, seconds=tuple(seconds))


def question_record(row: Row, truth: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """The plain, JSON-able record of a question, in this shape in requests, trajectories and their scores.

    Args:
      row: the question; its images and scene are not in the record, and of `meta` only plain values.
      truth: the right boxes and lines, where the task knows them.

    Returns:
      id, question, answer, question_type, options, data_type, meta, truth and source (see `Row`), and seconds
      where they are known.
    """
    return {
        "id": row.id,
        "question": row.question,
        "answer": row.answer,
        "question_type": row.question_type,
        "options": list(row.options),
        "data_type": row.data_type,
        "meta": {key: value for key, value in row.meta.items() if _is_plain(value)},
        "truth": list(truth),
        "source": None if row.source is None else list(row.source),
        **({"seconds": list(row.seconds)} if row.seconds else {}),
    }


def _is_plain(value: Any) -> bool:
    items = value if isinstance(value, (list, tuple)) else [value]
    return all(isinstance(item, (str, int, float, bool)) for item in items)


@dataclass(frozen=True)
class Trace:
    """The assistant's texts of one conversation about a row, the answer turn last.

    `mistakes` are the turns (from 0) that are wrong on purpose, for a loss that leaves them out.
    """

    row: Row
    turns: tuple[str, ...]
    mistakes: tuple[int, ...] = ()


def chance(rows: Sequence[Row]) -> float:
    """Accuracy without looking: a random option, or a kind's commonest answer where there are no options."""
    choices = sum(1 / len(row.options) for row in rows if row.options)
    numbers: dict[Any, Counter] = {}
    for row in rows:
        if not row.options:
            numbers.setdefault((row.meta.get("family"), row.meta.get("kind")), Counter())[row.answer] += 1
    return (choices + sum(max(answers.values()) for answers in numbers.values())) / len(rows)
