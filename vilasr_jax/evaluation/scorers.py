"""The published scorers of one answer, by question type (arXiv 2506.09965 and the benchmarks').

They read the text of `<answer>`, take anything, and never raise. Free-form text is compared by case-folded
equality.
"""

from typing import Any

from vilasr_jax.errors import DataError
from vilasr_jax.rewards.answers import (
    mean_relative_accuracy,
    number_text,
    plain,
    read_number,
    view_change_accuracy,
)


def score_choice(prediction: Any, truth: Any) -> float:
    """1 when the first letters agree, in any case ("(b) left" and "B"); 0 for an answer without a letter."""
    said, right = _first_letter(prediction), _first_letter(truth)
    return float(said == right != "")


def score_numerical(prediction: Any, truth: Any) -> float:
    """1 when both or neither carry a decimal point and they agree after rounding to 2 places."""
    said, right = number_text(prediction), number_text(truth)
    if said is None or right is None or ("." in said) != ("." in right):
        return 0.0
    return float(round(float(said), 2) == round(float(right), 2))


def score_regression(prediction: Any, truth: Any) -> float:
    """Mean relative accuracy of the two numbers, 0 when one is missing."""
    return mean_relative_accuracy(read_number(prediction), read_number(truth))


def score_vci(prediction: Any, truth: Any) -> float:
    """View change: `move_right:0.3,rotate_left:20,...` as five signed axes, the mean of their scores."""
    return view_change_accuracy(prediction, truth)


def score_free_form(prediction: Any, truth: Any) -> float:
    """1 for the same words in any case."""
    return float(plain(prediction).casefold() == plain(truth).casefold() != "")


SCORERS = {
    "multiple choice": score_choice,
    "numerical": score_numerical,
    "regression": score_regression,
    "vci": score_vci,
    "free-form": score_free_form,
}


def question_kind(problem_type: str) -> str:
    """The name in `SCORERS` of a row's `problem_type`, however written; DataError for an unknown one."""
    words = problem_type.strip().lower().replace("_", " ").replace("-", " ")
    kind = "free-form" if words == "free form" else words
    if kind not in SCORERS:
        raise DataError(f"problem_type {problem_type!r} is unknown; there are: {', '.join(SCORERS)}")
    return kind


def score_answer(prediction: Any, truth: Any, problem_type: str) -> float:
    """Scores one answer, 0 to 1, by the row's `problem_type`; DataError names an unknown one."""
    return SCORERS[question_kind(problem_type)](prediction, truth)


def _first_letter(answer: Any) -> str:
    text = plain(answer).lstrip(" ([{\"'*`").upper()
    return text[0] if text and text[0].isalpha() else ""
