"""Scorers of one answer, by question type, in two readings. Both accept any value and never raise.

- "published": exactly what ViLaSR's evaluation does (arXiv 2506.09965): a choice is the first character, a
  number is the full text without its commas. "(B) left" and "3.5 meters" score 0. Scores are these, where
  nothing else is said.
- "lenient": our own kinder reading. A bracket is allowed before the letter, a unit after the number.

They read the text of `<answer>`; an answer that is missing scores 0. Free-form text, which has no published
scorer, is compared by case-folded equality.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from vilasr_jax.errors import DataError
from vilasr_jax.rewards.parse_answer import (
    THRESHOLDS,
    VIEW_AXES,
    mean_relative_accuracy,
    number_text,
    plain,
    read_number,
    view_change_accuracy,
)

EPSILON = np.float32(1e-8)  # added to the truth that an error is divided by, as published
_LEVELS = 1 - np.array(
    THRESHOLDS, np.float32
)  # in single precision, as published: 15 % off is not within .15

Scorer = Callable[[Any, Any], float]


def score_choice(prediction: Any, truth: Any) -> float:
    """1 when the first characters agree, in any case ("b: left" and "B"; not "(B)")."""
    said, right = plain(prediction)[:1].lower(), plain(truth)[:1].lower()
    return float(said == right != "")


def score_numerical(prediction: Any, truth: Any) -> float:
    """1 when both or neither carry a point or comma and they agree after rounding to 2 places; the answer has
    to be a number and nothing else."""
    said, right = plain(prediction), plain(truth)
    given, true = _float(said), _float(right)
    if given is None or true is None or _has_point(said) != _has_point(right):
        return 0.0
    return float(round(given, 2) == round(true, 2))


def score_regression(prediction: Any, truth: Any) -> float:
    """Mean relative accuracy of the two numbers; 0 for an answer that is more or less than a number."""
    said, right = _float(plain(prediction)), _float(plain(truth))
    return 0.0 if said is None or right is None else _accuracy(said, right)


def score_vci(prediction: Any, truth: Any) -> float:
    """View change: `move_right:0.3,rotate_left:20,...` as five signed axes, the mean of their accuracies; 0
    when a part is no name and number."""
    said, right = _moves(plain(prediction)), _moves(plain(truth))
    if said is None or right is None:
        return 0.0
    a, b = ([own.get(plus, 0.0) - own.get(minus, 0.0) for plus, minus in VIEW_AXES] for own in (said, right))
    return sum(map(_accuracy, a, b)) / len(VIEW_AXES)


def score_free_form(prediction: Any, truth: Any) -> float:
    """1 for the same words in any case (no published scorer)."""
    return float(plain(prediction).casefold() == plain(truth).casefold() != "")


def lenient_choice(prediction: Any, truth: Any) -> float:
    """1 when the first letters agree, in any case ("(b) left" and "B"); 0 for an answer without a letter."""
    said, right = _first_letter(prediction), _first_letter(truth)
    return float(said == right != "")


def lenient_numerical(prediction: Any, truth: Any) -> float:
    """1 when both or neither have a decimal point and they agree after rounding to 2 places.

    A unit after the number is ignored.
    """
    said, right = number_text(prediction), number_text(truth)
    if said is None or right is None or ("." in said) != ("." in right):
        return 0.0
    return float(round(float(said), 2) == round(float(right), 2))


def lenient_regression(prediction: Any, truth: Any) -> float:
    """Mean relative accuracy of the two numbers, 0 when one is missing; units are ignored."""
    return mean_relative_accuracy(read_number(prediction), read_number(truth))


def lenient_vci(prediction: Any, truth: Any) -> float:
    """View change as published, but with space, capitals and units; an axis without movement is judged
    by the absolute error, as SPAR-Bench does."""
    return view_change_accuracy(prediction, truth)


SCORERS: dict[str, Scorer] = {
    "multiple choice": score_choice,
    "numerical": score_numerical,
    "regression": score_regression,
    "vci": score_vci,
    "free-form": score_free_form,
}
READINGS: dict[str, dict[str, Scorer]] = {
    "published": SCORERS,
    "lenient": {
        "multiple choice": lenient_choice,
        "numerical": lenient_numerical,
        "regression": lenient_regression,
        "vci": lenient_vci,
        "free-form": score_free_form,
    },
}


def question_kind(problem_type: str) -> str:
    """The name in `SCORERS` of a row's `problem_type`, however written; DataError for an unknown one."""
    words = problem_type.strip().lower().replace("_", " ").replace("-", " ")
    kind = "free-form" if words == "free form" else words
    if kind not in SCORERS:
        raise DataError(f"problem_type {problem_type!r} is unknown; there are: {', '.join(SCORERS)}")
    return kind


def score_answer(prediction: Any, truth: Any, problem_type: str, reading: str = "published") -> float:
    """Scores one answer, 0 to 1, by the row's `problem_type`, in a reading of `READINGS`.

    Raises:
      DataError: the problem type is unknown.
    """
    return READINGS[reading][question_kind(problem_type)](prediction, truth)


def _has_point(text: str) -> bool:
    return "." in text or "," in text


def _float(text: str) -> float | None:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def _accuracy(said: float, right: float) -> float:
    with np.errstate(all="ignore"):  # what is no finite number is within no threshold
        a, b = np.float32(said), np.float32(right)
        error = abs(a - b) / (abs(b) + EPSILON)
        return float(np.mean(error <= _LEVELS))


def _moves(text: str) -> dict[str, float] | None:
    moves: dict[str, float] = {}
    for item in text.split(","):
        name, *values = item.split(":")
        number = _float(values[0]) if len(values) == 1 else None
        if number is None:
            return None
        moves[name] = number
    return moves


def _first_letter(answer: Any) -> str:
    text = plain(answer).lstrip(" ([{\"'*`").upper()
    return text[0] if text and text[0].isalpha() else ""
