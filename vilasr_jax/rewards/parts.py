"""The rewards that come with the program."""

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
    if done.prediction is None:
        return 0.0
    if done.question_type in NUMBERS:
        return mean_relative_accuracy(read_number(done.prediction), read_number(done.answer))
    if done.question_type == "vci":
        return view_change_accuracy(done.prediction, done.answer)
    truth = truth_letter(done.answer, done.options)
    if truth is not None and choice_letter(done.prediction, done.options) == truth:
        return 1.0
    if option_letter(done.answer):
        return 0.0
    return float(plain(done.prediction).casefold() == plain(done.answer).casefold() != "")


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
