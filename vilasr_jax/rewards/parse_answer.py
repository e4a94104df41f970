"""Reading short answers: option letters and numbers, and how near a number is.

The answers are what `drawing.actions.tagged_answer` has found in a model's last turn, or what rows store.
Every function here accepts any text or None and never raises.
"""

import math
import re
from collections.abc import Sequence

THRESHOLDS = tuple(0.5 + 0.05 * k for k in range(10))  # .50, .55, ..., .95
VIEW_AXES = (
    ("move_right", "move_left"),
    ("move_up", "move_down"),
    ("move_forward", "move_backward"),
    ("rotate_right", "rotate_left"),
    ("rotate_up", "rotate_down"),
)

_TAGS = re.compile(r"</?answer>")
_LETTER = re.compile(r"\s*[(\[]?\s*([A-Za-z])\s*[)\]]?\s*[.:]?\s*\Z")
_LETTERED = re.compile(r"[(\[]?\s*([A-Za-z])\s*(?:[.:]|[)\]][.:]?)\s+(?=\S)")
_NUMBER = re.compile(
    r"\s*((?:[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-+]?\.\d+)(?:[eE][-+]?\d+)?)"
    # not part of a longer one: a fraction, a range, a sum, a time, a list, digits in groups, a power
    r"(?!\s*(?:[=-]>|[.,;:/'’_*^×x~到至+=→\-\u2010-\u2015\u2212])?\s*\d)"
    r"(?!\s*(?:to|or|plus|minus|times|by)\b)"
    r"(?!\s*(?:[A-Za-z]+\.?\s+)?(?:to|or|and)\s+(?:[-+]?\d|an?\s+(?:half|third|quarter)\b))"
    # a length or time of two units: "3 feet 2 inches", "3 m, 20 cm", "6ft2"
    r"(?!\s*[A-Za-z]+\.?\s+\d)(?!\s*(?:m|met(?:er|re)s?|yards?|h|hours?|min(?:utes?)?)\.?,\s*\d)"
    r"(?!\s*(?:ft|foot|feet)\.?,?\s*\d)"
    # the first factor of a number in words or letters: "1.5 million", "2 dozen", "5k"
    r"(?!\s*(?i:dozen|score|hundred|thousand|lakh|crore|(?:m|b|tr)illion)s?\b)(?!\s*[十百千万億亿兆])"
    r"(?!(?:[kKMB]|\s*(?:k|mn|bn))\b)"
    r"(?![eE](?:[^A-Za-z]|\Z))(?!\s*[¼-¾⅐-⅞²³¹⁰-⁹])"
)


def plain(answer: object) -> str:
    """The text without `<answer>` tags (stored answers may be wrapped in them) and outer space."""
    return "" if answer is None else _TAGS.sub("", str(answer)).strip()


def option_letter(answer: object) -> str | None:
    """The letter of an answer that is one letter and nothing else ("b", "(B)", "B."), in upper case."""
    match = _LETTER.match(plain(answer))
    return match.group(1).upper() if match else None


def choice_letter(answer: object, options: Sequence[str]) -> str | None:
    """The letter of a choice: alone (see `option_letter`), or before the text of an option.

    "B. left" and "(B) left" are read where there are options. Other words than an option's after the letter
    are read only by `truth_letter`.

    >>> choice_letter("b) left", ("A. right", "B. left")), choice_letter("B or C", ("A. right", "B. left"))
    ('B', None)
    """
    letter, match = option_letter(answer), _LETTERED.match(plain(answer))
    if letter or not match:
        return letter
    at = ord(match.group(1).upper()) - ord("A")
    return (
        match.group(1).upper()
        if _texts(options)[at : at + 1] == [plain(answer)[match.end() :].casefold()]
        else None
    )


def truth_letter(answer: object, options: Sequence[str]) -> str | None:
    """The letter of a right answer: alone, or where there are options before any text or as an option's text.

    >>> [truth_letter(text, ("A. right", "B. left")) for text in ("b", "B. left", "left", "up")]
    ['B', 'B', 'B', None]
    """
    match = _LETTERED.match(plain(answer)) if options else None
    if letter := match.group(1).upper() if match else option_letter(answer):
        return letter
    at = [number for number, text in enumerate(_texts(options)) if text == plain(answer).casefold()]
    return chr(ord("A") + at[0]) if len(at) == 1 else None


def _texts(options: Sequence[str]) -> list[str]:
    """The options without letters before them, in lower case."""
    return [_LETTERED.sub("", plain(option)).casefold() for option in options]


def number_text(answer: object) -> str | None:
    """The number an answer starts with, as written but without thousands commas ("1,234.5 m" -> "1234.5").

    None where it is part of something longer: "1/2", "3.14,2", "5-6", "1 200", "1.5 million" and
    "3 feet 2 inches" hold no one number.
    """
    match = _NUMBER.match(plain(answer)[:100].replace("\u2212", "-"))
    return match.group(1).replace(",", "") if match else None


def read_number(answer: object) -> float | None:
    """The number an answer starts with (see `number_text`); a unit may come after. Words are not numbers."""
    text = number_text(answer)
    value = float(text) if text else None
    return value if value is not None and math.isfinite(value) else None


def mean_relative_accuracy(prediction: float | None, truth: float | None) -> float:
    r"""Fraction of the thresholds $\theta$ with $|p - t| / |t| \le 1 - \theta$ (VSI-Bench, arXiv 2412.14171).

    A truth of 0 has no relative error: the absolute error is used instead, as SPAR-Bench does.

    >>> mean_relative_accuracy(9.0, 10.0)
    0.9
    """
    if prediction is None or truth is None or not (math.isfinite(prediction) and math.isfinite(truth)):
        return 0.0
    error = abs(prediction - truth) / (abs(truth) or 1.0)
    return sum(error <= 1 - threshold + 1e-9 for threshold in THRESHOLDS) / len(THRESHOLDS)


def view_change_accuracy(prediction: object, truth: object) -> float:
    """Two view changes as SPAR-Bench writes them, each as five signed axes: the mean of the axes' accuracies.

    0 when either can't be read.

    >>> view_change_accuracy("move_right:0.3,rotate_left:20", "move_left:-0.3, rotate_left:20")
    1.0
    """
    said, right = _view_change(prediction), _view_change(truth)
    if said is None or right is None:
        return 0.0
    return sum(mean_relative_accuracy(a, b) for a, b in zip(said, right, strict=True)) / len(VIEW_AXES)


def _view_change(answer: object) -> list[float] | None:
    steps: dict[str, float] = {}
    for item in plain(answer).split(","):
        name, colon, value = item.partition(":")
        number = read_number(value)
        if not colon or number is None:
            return None
        steps[name.strip().lower()] = number
    return [steps.get(plus, 0.0) - steps.get(minus, 0.0) for plus, minus in VIEW_AXES]
