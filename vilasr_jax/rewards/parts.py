"""The rewards that come with the program."""

from collections.abc import Sequence

from vilasr_jax.errors import DataError
from vilasr_jax.rewards.parse_answer import (
    choice_letter,
    mean_relative_accuracy,
    option_letter,
    plain,
    read_number,
    truth_letter,
    view_change_accuracy,
)
from vilasr_jax.rewards.registry import Finished, register

NUMBERS = ("numerical", "regression", "number")


@register("accuracy")
def accuracy(done: Finished) -> float:
    """1 for the right option letter or text; for a number or a view change its mean relative accuracy; 0
    without an `<answer>`."""
    return _accuracy(done.prediction, done.answer, done.question_type, done.options)


def _accuracy(prediction: str | None, answer: str, question_type: str, options: Sequence[str]) -> float:
    if prediction is None:
        return 0.0
    if question_type in NUMBERS:
        return mean_relative_accuracy(read_number(prediction), read_number(answer))
    if question_type == "vci":
        return view_change_accuracy(prediction, answer)
    truth = truth_letter(answer, options)
    if truth is not None and choice_letter(prediction, options) == truth:
        return 1.0
    if option_letter(answer):
        return 0.0
    return float(plain(prediction).casefold() == plain(answer).casefold() != "")


def check_answer(answer: str, question_type: str, options: Sequence[str]) -> None:
    """Checks that some answer to a question earns the accuracy reward.

    Raises:
      DataError: the right answer isn't one of the options, or can't be read as its type's.
    """
    letters = [chr(ord("A") + number) for number in range(len(options))]
    if options and question_type not in (*NUMBERS, "vci") and truth_letter(answer, options) not in letters:
        raise DataError(f"answer {plain(answer)[:80]!r} isn't one of the {len(options)} options")
    if _accuracy(plain(answer), answer, question_type, options) < 1:
        raise DataError(f"answer {plain(answer)[:80]!r} can't be read as one of type {question_type!r}")


@register("format")
def valid_format(done: Finished) -> float:
    """1 when every turn has the published form and only the last one answers."""
    if not done.turns:
        return 0.0
    *earlier, last = done.turns
    valid = all(turn.strict_format and turn.answer is None and turn.action != "Answer" for turn in earlier)
    return float(valid and last.strict_format and last.action == "Answer" and last.answer is not None)


@register("drawing")
def drawing(done: Finished) -> float:
    """Fraction of the row's own right drawings that were drawn within tolerance (0 when it has none).

    The row's `meta["drawings"]` lists them: `{"label", "points": [[x, y], ...], "tolerance"}` in pixels, the
    points being a box's two corners or a line's two ends. The last call of a label is the one that counts.
    """
    wanted = [item for item in done.meta.get("drawings") or () if isinstance(item, dict)]
    found = {}
    for call in done.calls:
        points = [call[name] for name in ("x1", "y1", "x2", "y2") if call.get(name) is not None]
        if len(points) == 4:
            found[call.get("label")] = points
    return sum(_near(found.get(item.get("label")), item) for item in wanted) / len(wanted) if wanted else 0.0


@register("drew")
def drew(done: Finished) -> float:
    """1 when anything was drawn: with the rule, a bonus for drawings that come with a right answer
    (DeepEyes, arXiv 2505.14362)."""
    return float(done.drawings > 0)


@register("repeat")
def repeat(done: Finished) -> float:
    """Fraction of the turns that only repeated drawings; a penalty, so its weight is subtracted."""
    repeated = [event for event in done.events if event.get("repeated") and not event.get("drawn")]
    return len(repeated) / len(done.events) if done.events else 0.0


def _near(points: list[float] | None, item: dict) -> bool:
    want = [float(value) for point in item["points"] for value in point]
    if points is None or len(want) != len(points):
        return False
    return all(abs(a - b) <= float(item.get("tolerance", 14.0)) for a, b in zip(points, want, strict=True))
