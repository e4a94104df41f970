"""Words of a turn by which a number is a place on an axis of an image, or an extent there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

from vilasr_jax.drawing.numbers import sentence_at
from vilasr_jax.drawing.sizes import PICTURE, UNIT_AFTER, StatedSize

FLAGS = re.ASCII | re.IGNORECASE
_BEFORE = 60  # characters in which such words are looked for

PLURAL = re.compile(r" (?:[a-z]{2,}s|people|children|men|women)\b", FLAGS)
_GAP = r"[^.?!\n\d]{0,30}"
_VERBS = r"(?:spans?|ranges?|goes|runs?|extends?|stretch(?:es)?)"
_PLACES = [  # words right before the number
    re.compile(rf"{words}\Z", FLAGS)
    for words in (
        rf"(?<!\d )\b[xy]\b(?! ?\d){_GAP}",
        r"\b(?:left|right|top|bottom|upper|lower)(?:most)?[- ](?:hand )?"
        r"(?:sides?|ends?|boundar(?:y|ies)|limits?)\b"
        rf"{_GAP}\b(?:is|at|near|about|around|from)\s",
        r"\b(?:starts?|begins?|ends?|extends?|reach(?:es)?)\s(?:at|near|around|about|from|to)\s",
        rf"\b(?:box(?:es)?|bbox)\b{_GAP}\b{_VERBS}\b{_GAP}",
        rf"\b(?:shift(?:s|ed)?|nudged?|offset)\b{_GAP}",
    )
]
_AXIS = re.compile(rf"\b(?:horizontal|vertical)(?:ly)?\b|\b{_VERBS}\s\d+\W\d+ across\b", FLAGS)
_CHANGE = re.compile(  # how much larger a box is drawn, or how far from where it was
    rf"\b(?:widen|enlarge|expand|extend|shrink|shift|pad)(?:s|ed|ing)?\b{_GAP}\bby (\d+)(?![\w%]|\.\d)", FLAGS
)
_SIDES = re.compile(r"\b(?:width|height|wide|tall|high)\b", FLAGS)
_OTHER = re.compile(  # what a sentence is about whose numbers are no places
    r"\b(?:prices?|costs?|times?|clock|videos?|frames?|pages?|years?|ages?|routes?|count\w*|scales?|numbers?"
    r"|scores?|temperatures?|rooms?|levels?|degrees?)\b",
    FLAGS,
)


def is_span(words: str, number: re.Match, said: set[Fraction]) -> bool:
    """Whether a number is a place by its sentence's axis, side or verb, as in "x goes from 205 to 333".

    Numbers that are `said` in the answer, and those before a plural ("30 books"), are none.
    """
    sentence = sentence_at(words, number.start())
    if Fraction(number[0]) in said or _OTHER.search(sentence) or PLURAL.match(words, number.end()):
        return False
    before = words[max(0, number.start() - _BEFORE) : number.start()]
    return bool(_AXIS.search(sentence)) or any(place.search(before) for place in _PLACES)


def changed_extents(words: str) -> Iterator[re.Match]:
    """Where words say by how many pixels a drawing is to change: "widen the box by 25"."""
    for change in _CHANGE.finditer(words):
        if not (UNIT_AFTER.match(words, change.end()) or PLURAL.match(words, change.end())):
            yield change


def names_sides(words: str, size: StatedSize) -> bool:
    """Whether a stated size is a width and a height of something in an image, and not of the image."""
    return bool(_SIDES.search(words, *size.span)) and not PICTURE.search(sentence_at(words, size.start))
