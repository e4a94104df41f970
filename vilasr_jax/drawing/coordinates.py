"""Coordinates and sizes that are written in texts, converted from one frame of a picture to another.

A frame is the (width, height) that coordinates refer to: a picture's pixels at some size, or (1000, 1000) for
coordinates that run from 0 to 1000. Texts are changed number by number; every other character stays as it is.

>>> half = Scale((448, 336), (224, 168))
>>> item = '{"index": 1, "bbox_2d": [300, 200, 440, 330], "label": "chair"}'
>>> convert_items(item, {1: half}, {})
'{"index": 1, "bbox_2d": [150, 100, 220, 165], "label": "chair"}'
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from vilasr_jax.drawing.sizes import SMALLEST, UNIT, UNIT_AFTER, Frame, of_picture, stated_sizes
from vilasr_jax.errors import DataError

Known = MutableMapping[tuple[str, ...], set[tuple[str, ...]]]  # coordinates as written, and as converted

_N = r"[-+]?(?:\d{1,7}(?:\.\d{1,6})?|\.\d{1,6})"
_OBJECT = re.compile(r'\{(?:[^{}"]++|"(?:[^"\\]|\\.)*+")*+\}')
_VALUE = re.compile(r'"(\w+)"\s*:\s*(\[(?:[^\[\]"{}]|\[[^\[\]"{}]*\])*\]|"(?:[^"\\]|\\.)*")')
_INDEX = re.compile(r'"index"\s*:\s*"?\s*(\d{1,6})\s*(?:\.0)?"?\s*[,}]')
_NUMBER = re.compile(_N)
_SERIES = re.compile(rf"(?<![\w.,]){_N}(?:\s*[,;]\s*{_N})+(?!\w|\.\d)")
_SPACED = re.compile(rf"[\[(>]\s*({_N}(?:\s+{_N})+)\s*[\])<]")
_NAMED = re.compile(
    rf"(?<![\w.])(?<!\d )(?:[xy]\d?|[xy][_ ]?(?:min|max)|left|right|top|bottom)(?:\W{{0,3}}[=:≈]\W{{0,3}}"
    rf"|\s(?:(?:is|at|of|near|about|around|from|to|coordinate|[~≈])\s?){{0,3}})({_N})(?!\w|\.\d)",
    re.IGNORECASE,
)
_PIXELS = re.compile(r"(?:\b|(?<=\d))(?:px|pixels?)\b", re.IGNORECASE)
_LENGTH = re.compile(
    r"\d\s?-?(?:px|pixels?)\b|\b(?:px|pixels?)\s(?:\w+\s)?\d"
    r"|\bedges?\s(?:(?:is|lies)\s)?(?:at|near|about|around)\s\d",
    re.IGNORECASE,
)
_BOXES = re.compile(  # words that make numbers boxes in pixels
    r"\bbbox\w*|\bbounding[ -]box|\b(?:which|what)\b[^.?!\n]{0,30}\bbox(?:es)?\b"
    r"|\bbox(?:es)?\b[^.?!\n\d]{0,20}[\[(]\s*\d",
    re.IGNORECASE,
)
_OTHER = re.compile(  # words of numbers that are no pixels
    rf"\b(?:{UNIT}|cells?|grids?|rows?|columns?|orders?|steps?|scale|normali[sz]ed)\b|[%°]", re.IGNORECASE
)
_LARGE = re.compile(r"(?<![\w.])(?:2[89]|[3-9]\d|\d{3,})(?!\w|\.\d)")  # `SMALLEST` and more
_EXAMPLE = re.compile(r"\(e\.g\., [\d.]+ or [\d.]+\)")  # of the answer's form
_GRID = re.compile(r"\b(?:cells?|grids?|rows?|columns?|steps?|moves?)\b", re.IGNORECASE)
_NORMALISED = re.compile(
    r"normali[sz]ed|\b0\s?(?:-|–|to|and)\s?(1000|1,000|100|1)\b|\bscale of (1000|1,000|100|1)\b",
    re.IGNORECASE,
)
_PLACES = re.compile(
    r"\b(?:pixels?|px|coordinates?|bbox\w*|box(?:es)?|bounding|points?|2d|positions?|locat\w+|regions?"
    r"|corners?|cent(?:re|er)s?|edges?)\b",
    re.IGNORECASE,
)
_AT = re.compile(r"\b(?:at|near|around|about|from|to|is)\W{1,3}\Z", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?](?=\s)|\n")


@dataclass(frozen=True)
class Scale:
    """From one frame of a picture to another."""

    old: Frame
    new: Frame

    def number(self, text: str, axis: int) -> str:
        """A coordinate (axis 0: x, 1: y) in the new frame, with as many decimals as it was written with."""
        decimals = len(text.partition(".")[2])
        exact = Fraction(text) * self.new[axis] / self.old[axis] * 10**decimals
        units = math.floor(exact + Fraction(1, 2))
        if not decimals:
            return str(units)
        sign, units = "-" if units < 0 else "", abs(units)
        return f"{sign}{units // 10**decimals}.{units % 10**decimals:0{decimals}d}"

    def numbers(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        """x, y, x, y, ... in the new frame."""
        return tuple(self.number(text, place % 2) for place, text in enumerate(texts))


def convert_sizes(text: str, new: Mapping[Frame, Frame], certain: bool = True) -> str:
    """The text with each stated size that is a key of `new` replaced by its value.

    Sizes in JSON items stay. Unless the text is `certain` to speak of pictures, a bare "448 x 336" is
    replaced only beside words that make it a picture's.
    """
    changes, items = {}, [item.span() for item in _OBJECT.finditer(text) if _values(item[0])]
    for size in stated_sizes(text):
        inside = any(a <= size.start < b for a, b in items)
        if size.frame in new and (certain or of_picture(text, size)) and not inside:
            width, height = new[size.frame]
            changes |= {size.w: str(width), size.h: str(height)}
    return _replaced(text, changes)


def convert_items(text: str, scales: Mapping[int, Scale], known: Known) -> str:
    """A turn with the coordinates of its JSON items converted, each by the scale of the image it names.

    Args:
      text: what an assistant wrote.
      scales: of each image, by its index (from 1).
      known: gets the coordinates that were found, for `convert_prose`.

    Raises:
      DataError: an item's image or coordinates can't be read, or nothing is left of its box or line.
    """
    changes: dict[tuple[int, int], str] = {}
    for item in _OBJECT.finditer(text):
        values = _values(item[0])
        if not values:
            continue
        index = _INDEX.search(item[0])
        if not index or int(index[1]) not in scales:
            what = f"names image {index[1]}, which is not there" if index else "names no image"
            raise DataError(f"an item with coordinates {what}: {_short(item[0])}")
        scale, places = scales[int(index[1])], []
        for value in values:
            at = item.start() + value.start(2)
            numbers = list(_NUMBER.finditer(value[2]))
            if len(numbers) not in (2, 4) or re.search(r"[A-Za-z%]|(?<!\d)\.", value[2]):
                raise DataError(f"{value[1]} holds no coordinates that can be read: {_short(value[0])}")
            old = tuple(number[0] for number in numbers)
            new = scale.numbers(old)
            places.append((old, new))
            for number, written in zip(numbers, new, strict=True):
                changes[number.start() + at, number.end() + at] = written
        _check_extent(places, item[0])
        for old, new in places:
            for first, end in {(0, len(old)), (0, 2), (len(old) - 2, len(old))}:
                known.setdefault(old[first:end], set()).add(new[first:end])
    return _replaced(text, changes)


def check_places(text: str, frames: Sequence[Frame]) -> None:
    """Refuses coordinates that can't be pixels of the image that their item names.

    Args:
      text: what an assistant wrote.
      frames: (width, height) of each image.

    Raises:
      DataError: coordinates are fractions of 1, or lie more than `SMALLEST` pixels outside the image.
    """
    for item in _OBJECT.finditer(text):
        index = _INDEX.search(item[0])
        if not index or not 1 <= int(index[1]) <= len(frames):
            continue
        frame = frames[int(index[1]) - 1]
        for value in _values(item[0]):
            texts = [number[0] for number in _NUMBER.finditer(value[2])]
            numbers = [float(text) for text in texts]
            if "." in "".join(texts) and max(map(abs, numbers)) <= 1:
                raise DataError(f"coordinates are fractions, not pixels: {_short(item[0])}")
            for place, number in enumerate(numbers):
                if not -SMALLEST <= number <= frame[place % 2] + SMALLEST:
                    image = f"the {frame[0]} x {frame[1]} image"
                    raise DataError(f"{texts[place]} is outside {image}: {_short(item[0])}")


def _values(item: str) -> list[re.Match]:
    """The keys of an item whose values are coordinates."""
    found = _VALUE.finditer(item)
    return [v for v in found if v[1].endswith("_2d") or (v[2][0] == "[" and '"index"' in item)]


def _check_extent(places: list[tuple[tuple[str, ...], tuple[str, ...]]], item: str) -> None:
    """A box that had an area, or a line that had a length, must still have one."""
    if len(places) == 2 and all(len(old) == 2 for old, _ in places):  # from a start to an end
        (a, b), (c, d) = places
        if a != c and b == d:
            raise DataError(f"nothing is left of a line at this size: {_short(item)}")
    for old, new in places:
        if len(old) == 4 and any(old[i] != old[i + 2] and new[i] == new[i + 2] for i in (0, 1)):
            raise DataError(f"nothing is left of a box at this size: {_short(item)}")


def convert_prose(text: str, known: Known) -> str:
    """The words around the items, with coordinates that `convert_items` has met converted as there.

    Raises:
      DataError: the words hold coordinates or lengths in pixels whose image can't be told.
    """
    parts, at = [], 0
    items = [item for item in _OBJECT.finditer(text) if _values(item[0])]
    for item in (*items, None):
        words = text[at : item.start() if item else len(text)]
        parts.append(_prose(words, known))
        if item:
            parts.append(item[0])
            at = item.end()
    return "".join(parts)


def _prose(words: str, known: Known) -> str:
    if stray := re.search(r"\w*_2d\W{0,6}\d", words):
        raise DataError(f"coordinates outside a JSON item: {_short(words[stray.start() :])}")
    changes: dict[tuple[int, int], str] = {}
    for series in _series(words):
        new = known.get(series.texts, ())
        sentence = _sentence(words, series.start)
        marked = series.bracketed or (series.large and (len(series.texts) == 4 or series.at))
        if (
            series.unit
            or len(series.texts) == 3
            or not (marked or (series.large and _PLACES.search(sentence)))
        ):
            continue
        if len(new) == 1 and (series.large or not _GRID.search(sentence)):
            changes |= dict(zip(series.spans, next(iter(new)), strict=True))
        elif new or series.large or not _GRID.search(sentence):
            raise DataError(f"the words hold coordinates ({series.said}), and no item says of which image")
    rest = _blanked(words, [size.span for size in stated_sizes(words)])
    named = (n for n in _NAMED.finditer(rest) if n[0][0] in "xyXY" or abs(float(n[1])) >= SMALLEST)
    if length := _LENGTH.search(rest) or next(named, None):
        raise DataError(f"the words hold a length in pixels: {length[0]}")
    return _replaced(words, changes)


def convert_question(texts: tuple[str, ...], scales: set[Scale]) -> tuple[str, ...]:
    """A question with its options and answer, coordinates in pixels of its pictures converted.

    Lists of two or four numbers are coordinates where the texts speak of pixels, bounding boxes or "which
    box", and of no other unit. Numbers stay where they have another unit or the texts call coordinates
    normalised, and where all are below `SMALLEST` (cells of a grid). All else is refused.

    Args:
      texts: the question first.
      scales: of the question's pictures.

    Raises:
      DataError: whether numbers are coordinates, or of which picture, can't be told.
    """
    if all(scale.old == scale.new for scale in scales):
        return texts
    rests = [_blanked(text, [size.span for size in stated_sizes(text)]) for text in texts]
    rests = [_EXAMPLE.sub(lambda example: " " * len(example[0]), rest) for rest in rests]
    whole = "\n".join(rests)
    found = [[s for s in _series(rest) if not s.unit and len(s.texts) != 3] for rest in rests]
    pixels = bool(_PIXELS.search(whole))
    if limit := _normalised_to(whole):
        if pixels or any(abs(float(n)) > limit for some in found for series in some for n in series.texts):
            raise DataError(f"the question speaks of coordinates up to {limit}, and of others")
        return texts
    places, other = _PLACES.search(whole), _OTHER.search(whole)
    sure = {2: pixels, 4: pixels or bool(_BOXES.search(whole))} if not other else {}
    lengths = {len(series.texts) for some in found for series in some if series.large}
    out = []
    for text, rest, some in zip(texts, rests, found, strict=True):
        changes: dict[tuple[int, int], str] = {}
        for series in some:
            marked = series.bracketed or len(series.texts) == 4
            cells = not lengths and (other or not any(sure.values()))
            fraction = not lengths and all(abs(float(number)) <= 1 for number in series.texts)
            if cells or fraction or not (marked or (series.large and (places or series.at))):
                continue
            size = len(series.texts)
            certain = marked and sure.get(size) and (series.large or (series.bracketed and size in lengths))
            if not certain:
                raise DataError(f"({series.said}) may be coordinates, which a resized picture would change")
            changes |= dict(zip(series.spans, _converted(series, scales), strict=True))
        _check_rest(_blanked(rest, changes), pixels)
        out.append(_replaced(text, changes))
    if pixels and tuple(out) == texts and re.search(r"\d", "".join(texts[1:])):
        raise DataError("the question asks for pixels, which a resized picture would change")
    return tuple(out)


def _normalised_to(text: str) -> int:
    """The largest value of coordinates that the text calls normalised; 0 where it calls none so."""
    for sentence in _SENTENCE_END.split(text):
        said = _NORMALISED.search(sentence)
        if said and _PLACES.search(sentence):
            return int((said[1] or said[2] or "1000").replace(",", ""))
    return 0


def _converted(series: _Series, scales: set[Scale]) -> tuple[str, ...]:
    """The coordinates of a question's picture at its new size."""
    if len(scales) > 1:
        raise DataError(f"the question holds coordinates ({series.said}) and does not say of which picture")
    scale = next(iter(scales))
    if not all(0 <= float(n) <= scale.old[place % 2] for place, n in enumerate(series.texts)):
        raise DataError(f"({series.said}) lies outside of its picture, {scale.old[0]} x {scale.old[1]}")
    return scale.numbers(series.texts)


def _check_rest(rest: str, pixels: bool) -> None:
    """Refuses coordinates of a question that are not written as lists."""
    for named in (*_NAMED.finditer(rest), *_SPACED.finditer(rest)):
        numbers = [float(number[0]) for number in _NUMBER.finditer(named[1])]
        if (pixels or max(map(abs, numbers)) >= SMALLEST) and not UNIT_AFTER.match(rest, named.end(1)):
            raise DataError(f"{_short(named[0])} may be a coordinate, which a resized picture would change")
    if pixels and (number := _LENGTH.search(rest) or _LARGE.search(rest)):
        raise DataError(f"{number[0]} may be in pixels, which a resized picture would change")


@dataclass(frozen=True)
class _Series:
    """Two or more numbers with commas between them."""

    texts: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    said: str
    bracketed: bool
    at: bool  # after a word like "at"
    unit: bool  # before a unit that is not pixels

    @property
    def start(self) -> int:
        return self.spans[0][0]

    @property
    def large(self) -> bool:
        """Whether a number may be a coordinate in pixels and not a cell's."""
        return any(abs(float(text)) >= SMALLEST for text in self.texts)


def _series(words: str) -> list[_Series]:
    found = []
    for match in _SERIES.finditer(words):
        numbers = list(_NUMBER.finditer(words, *match.span()))
        before, after = words[: match.start()].rstrip()[-1:], words[match.end() :].lstrip()[:1]
        found.append(
            _Series(
                tuple(number[0] for number in numbers),
                tuple(number.span() for number in numbers),
                match[0],
                before in tuple("[(") and after in tuple("])"),
                bool(_AT.search(words[max(0, match.start() - 12) : match.start()])),
                bool(UNIT_AFTER.match(words, match.end())),
            )
        )
    return found


def _sentence(text: str, at: int) -> str:
    """The sentence around a place of a text."""
    ends = [0, *(end.end() for end in _SENTENCE_END.finditer(text)), len(text)]
    return next((text[a:b] for a, b in itertools.pairwise(ends) if a <= at < b), text)


def _blanked(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """The text with these parts as spaces."""
    for start, end in spans:
        text = text[:start] + " " * (end - start) + text[end:]
    return text


def _replaced(text: str, changes: Mapping[tuple[int, int], str]) -> str:
    parts, at = [], 0
    for (start, end), new in sorted(changes.items()):
        if start >= at:
            parts += [text[at:start], new]
            at = end
    return "".join([*parts, text[at:]])


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."
