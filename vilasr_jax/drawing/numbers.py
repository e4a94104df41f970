"""Numbers in texts: which form a series, next to which words, and with which unit.

Texts are read as `plain` makes them, character by character at the same places, so that what is found in the
plain text can be changed in the original.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from vilasr_jax.drawing.sizes import SMALLEST, UNIT_AFTER

Span = tuple[int, int]

N = r"(?:(?<!\d)[-+])?(?:\d{1,9}(?:\.\d{1,30})?(?:e[-+]?\d{1,2})?|\.\d{1,30})"
FLAGS = re.ASCII | re.IGNORECASE  # so that "300" in "x是300" is a word of its own

_PLAIN: dict[int, int | str] = {
    code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F) if chr(code) not in "！？．"
}
_PLAIN |= {ord(a): b for a, b in zip("、−【】〈〉《》〔〕", ",-[]<><>[]", strict=True)}
_PLAIN |= dict.fromkeys(map(ord, "\xa0\u2002\u2003\u2009\u202f\u3000"), " ")
_SERIES = re.compile(rf"(?<![\w.,/]){N}(?:(?:\s*[,;]\s*|[ \t]*[/|][ \t]*|[ \t]+){N})+(?!\w|\.\d)", FLAGS)
_NUMBER = re.compile(N, FLAGS)
_BARE = re.compile(rf"(?:(?<![\w.])|(?<=\b[xy]))(?<!\d:)(?:{N})(?!\w|\.\d|:\d)", FLAGS)
PIXELS = re.compile(r"(?:\b|(?<=\d))(?:px|pixels?)\b|像素", FLAGS)
IN_PIXELS = re.compile(rf"(?<![\d.])[\d.]*\d\s?-?(?:{PIXELS.pattern})", FLAGS)  # "40 pixels"
LENGTH = re.compile(rf"{IN_PIXELS.pattern}|\b(?:px|pixels?)\s(?:\w+\s)?\d", FLAGS)
_RANGE = re.compile(rf"\s?(?:to|and|or|by|[-–~x])\s?{N}", FLAGS)
_THOUSANDS = re.compile(r"\d,\d{3}(?!\d)")
_AT = re.compile(r"\b(?:at|near|around|about|from|to|is)\W{1,3}\Z", FLAGS)
_NAME = (  # what a coordinate is called
    r"(?:(?:\b[xy](?:\d(?!\d)|[-_ ]?(?:min|max))?|\b(?:left|right|top|bottom|rows?|columns?|cols?))"
    r"(?:[-_ ](?:coordinate|value|position|axis))?|坐标|边缘)"
)
_LINK = (  # what links the name to its number
    r"(?:(?=\d\d)|\W{0,3}[=:≈是为在]\W{0,3}"
    r"|[ \t]+(?:(?:is|at|of|near|about|around|roughly|from|to|equals|coordinate|value|[~≈])[ \t]?){0,4})"
)
_NAMED = re.compile(
    rf"(?<!\d )(?<![\d.]){_NAME}{_LINK}({N})(?!\w|\.\d)"
    r"|\b(?:edges?|corners?|borders?|cent(?:re|er)s?)\b[^.?!\n\d]{0,40}"
    rf"\b(?:is|at|near|about|around)\s({N})(?!\w|\.\d|:\d)"
    rf"|\b[uv]\s?[=:]\s?({N})(?!\w|\.\d)",
    FLAGS,
)
_SENTENCE_END = re.compile(r"[.!?](?=\s)|[。！？\n]")


def plain(text: str) -> str:
    """The text with full-width digits, brackets and commas as ASCII, each at the same place."""
    return text.translate(_PLAIN)


@dataclass(frozen=True)
class Series:
    """Two or more consecutive numbers, with commas, slashes or spaces between them."""

    texts: tuple[str, ...]
    spans: tuple[Span, ...]
    said: str
    bracketed: bool
    at: bool  # after a word like "at"
    unit: bool  # before a unit that is not pixels

    @property
    def start(self) -> int:
        """Where the first number begins."""
        return self.spans[0][0]

    @property
    def large(self) -> bool:
        """Whether a number may be a coordinate in pixels and not a cell's."""
        return any(abs(float(text)) >= SMALLEST for text in self.texts)

    @property
    def thousands(self) -> bool:
        """Whether a comma may be inside a number, as in "1,200, 300"."""
        return bool(_THOUSANDS.search(self.said) and re.search(r",\s", self.said))

    @property
    def plain(self) -> bool:
        """Whether commas alone part the numbers, so that it can be read in one way."""
        return not self.thousands and not re.search(r"[/|]|[^,;\s]\s+[^,;\s]", self.said)

    @property
    def other(self) -> bool:
        """Whether this is neither a point nor a box: it has a unit, or three numbers, as a colour has."""
        return self.unit or (len(self.texts) == 3 and not self.thousands)


def series_of(words: str) -> list[Series]:
    """The series of a plain text, in order."""
    found = []
    for match in _SERIES.finditer(words):
        numbers = list(_NUMBER.finditer(words, *match.span()))
        before, after = words[: match.start()].rstrip()[-1:], words[match.end() :].lstrip()[:1]
        found.append(
            Series(
                tuple(number[0] for number in numbers),
                tuple(number.span() for number in numbers),
                match[0],
                before in tuple("[({<>") and after in tuple("])}<>"),
                bool(_AT.search(words[max(0, match.start() - 12) : match.start()])),
                bool(UNIT_AFTER.match(words, match.end())),
            )
        )
    return found


def named_numbers(words: str, least: int = SMALLEST) -> Iterator[re.Match]:
    """Numbers without a unit that words call a coordinate: "x = 300", "column 300", "the edge is at 300".

    Those below `SMALLEST` count only where they are called x or y, and are not below `least`.
    """
    for match in _NAMED.finditer(words):
        group = match.lastindex or 0
        number, end = match[group], match.end(group)
        smallest = least if match[0][0] in "xyXY" else SMALLEST
        if abs(float(number)) >= smallest and not UNIT_AFTER.match(words, end):
            yield match


def large_numbers(words: str) -> Iterator[re.Match]:
    """Numbers of a plain text that may be in pixels: no cells, and none that has another unit."""
    for match in _BARE.finditer(words):
        to = _RANGE.match(words, match.end())
        ends = (match.end(), to.end() if to else match.end())
        if abs(float(match[0])) >= SMALLEST and not any(UNIT_AFTER.match(words, end) for end in ends):
            yield match


def sentences(text: str) -> list[str]:
    """The sentences of a text, each with its end."""
    return [text[a:b] for a, b in itertools.pairwise(_sentence_ends(text)) if a < b]


def sentence_at(text: str, at: int) -> str:
    """The sentence around a place of a text."""
    ends = _sentence_ends(text)
    after = bisect.bisect_right(ends, at)
    return text[ends[after - 1] : ends[after]] if after < len(ends) else text


@functools.lru_cache(maxsize=4)
def _sentence_ends(text: str) -> list[int]:
    return [0, *(end.end() for end in _SENTENCE_END.finditer(text)), len(text)]


def blanked(text: str, spans: Iterable[Span]) -> str:
    """The text with these parts as spaces."""
    return replaced(text, {(start, end): " " * (end - start) for start, end in spans})


def replaced(text: str, changes: Mapping[Span, str]) -> str:
    """The text with these parts changed; of two that overlap, the first."""
    parts, at = [], 0
    for (start, end), new in sorted(changes.items()):
        if start >= at:
            parts += [text[at:start], new]
            at = end
    return "".join([*parts, text[at:]])


def short(text: str) -> str:
    """The beginning of a text, for a message."""
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."
