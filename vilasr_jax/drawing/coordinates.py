"""Coordinates and sizes that are written in texts, converted from one frame of a picture to another.

A frame is the (width, height) that coordinates refer to: a picture's pixels at some size, or (1000, 1000) for
coordinates that run from 0 to 1000. Texts are changed number by number; every other character stays as it is.

>>> half = Scale((448, 336), (224, 168))
>>> item = '{"index": 1, "bbox_2d": [300, 200, 440, 330], "label": "chair"}'
>>> convert_items(item, {1: half}, {})
'{"index": 1, "bbox_2d": [150, 100, 220, 165], "label": "chair"}'
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from fractions import Fraction

from vilasr_jax.errors import DataError

Frame = tuple[int, int]  # width, height
Known = MutableMapping[tuple[str, ...], set[tuple[str, ...]]]  # coordinates as written, and as converted

SMALLEST = 28  # a side that a picture has at least; smaller numbers are no sizes
_N = r"[-+]?\d{1,7}(?:\.\d{1,6})?"
_OBJECT = re.compile(r'\{(?:[^{}"]++|"(?:[^"\\]|\\.)*+")*+\}')
_VALUE = re.compile(r'"(\w+)"\s*:\s*(\[(?:[^\[\]"{}]|\[[^\[\]"{}]*\])*\]|"(?:[^"\\]|\\.)*")')
_INDEX = re.compile(r'"index"\s*:\s*"?\s*(\d{1,6})\s*(?:\.0)?"?\s*[,}]')
_NUMBER = re.compile(_N)
_LIST = re.compile(rf"[\[(]\s*{_N}\s*,\s*{_N}(?:\s*,\s*{_N}\s*,\s*{_N})?\s*[\])]")
_BARE = re.compile(rf"(?<![\w.,]){_N}\s*,\s*{_N}(?:\s*,\s*{_N}\s*,\s*{_N})?(?![\w,]|\.\d)")
_LENGTHS = re.compile(r"\b[xy]\d?\s{0,2}[=:≈]\s{0,2}[-+]?\d|\d\s?(?:px|pixels?)\b", re.IGNORECASE)
_NORMALISED = re.compile(r"normali[sz]ed|\b0\s?(?:-|–|to)\s?(?:1000|1,000|1)\b", re.IGNORECASE)
_PLACES = re.compile(r"\b(?:pixels?|px|coordinates?|bbox\w*|boxes|box|bounding|points?|2d)\b", re.IGNORECASE)

_PX = r"(?:\s?(?:px|pixels?))?"
_IS = r"\W{0,4}(?:is|of|are)?\W{0,3}"
_STATED = [  # how texts state a size
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"width{_IS}(?P<w>\d+){_PX}\W{{1,4}}(?:and\W{{1,2}})?(?:its |the )?height{_IS}(?P<h>\d+)",
        rf"height{_IS}(?P<h>\d+){_PX}\W{{1,4}}(?:and\W{{1,2}})?(?:its |the )?width{_IS}(?P<w>\d+)",
        rf"width\W{{1,3}}(?:and |x )?height{_IS}(?P<w>\d+)\W{{1,4}}(?P<h>\d+)",
        rf"(?P<w>\d+){_PX}[ -]wide,?(?: and| by)? (?P<h>\d+){_PX}[ -](?:high|tall)",
    )
]
_CROSS = re.compile(r"(?<![\w.])(?P<w>\d{2,5})\s?[x×*]\s?(?P<h>\d{2,5})(?![\w]|\.\d)")


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


@dataclass(frozen=True)
class StatedSize:
    """A size that a text states: where its two numbers are, and whether words name width and height."""

    frame: Frame
    w: tuple[int, int]
    h: tuple[int, int]
    span: tuple[int, int]
    named: bool

    @property
    def start(self) -> int:
        """Where the first number begins."""
        return min(self.w[0], self.h[0])


def stated_sizes(text: str) -> list[StatedSize]:
    """The sizes that a text states ("width: 448, height: 336", "448 pixels wide and 336 pixels high",
    "448 x 336"), in order; none with a side below `SMALLEST`."""
    found: dict[int, StatedSize] = {}
    for pattern in (*_STATED, _CROSS):
        for match in pattern.finditer(text):
            frame = int(match["w"]), int(match["h"])
            size = StatedSize(frame, match.span("w"), match.span("h"), match.span(), pattern is not _CROSS)
            if min(frame) >= SMALLEST:
                found.setdefault(size.start, size)
    return [found[start] for start in sorted(found)]


def convert_sizes(text: str, new: Mapping[Frame, Frame]) -> str:
    """The text with each stated size that is a key of `new` replaced by its value."""
    changes = {}
    for size in stated_sizes(text):
        if size.frame in new:
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
            if len(numbers) not in (2, 4) or re.search(r"[A-Za-z%]", value[2]):
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
    for match, sure in _lists(words):
        new = known.get(tuple(number[0] for number in match), ())
        if len(new) == 1:
            for number, written in zip(match, next(iter(new)), strict=True):
                changes[number.span()] = written
        elif sure or new:
            said = words[match[0].start() : match[-1].end()]
            raise DataError(f"the words hold coordinates ({said}), and no item says of which image")
    if length := _LENGTHS.search(_without_sizes(words)):
        raise DataError(f"the words hold a length in pixels: {length[0]}")
    return _replaced(words, changes)


def convert_question(texts: tuple[str, ...], scales: set[Scale]) -> tuple[str, ...]:
    """A question with its options and answer, coordinates in pixels of its pictures converted.

    Lists of two or four numbers are coordinates where the texts speak of pixels, boxes, points or
    coordinates, and stay where they say that these are normalised, or where all are small (cells of a grid).

    Args:
      texts: the question first.
      scales: of the question's pictures.

    Raises:
      DataError: whether numbers are coordinates, or of which picture, can't be told.
    """
    whole = "\n".join(texts)
    if _NORMALISED.search(whole) or all(scale.old == scale.new for scale in scales):
        return texts
    places, out = bool(_PLACES.search(whole)), []
    for text in texts:
        changes: dict[tuple[int, int], str] = {}
        for match, sure in _lists(text):
            numbers = tuple(number[0] for number in match)
            large = any(abs(float(number)) >= SMALLEST for number in numbers)
            if not sure or not (places or large) or all(abs(float(number)) <= 1 for number in numbers):
                continue
            said = text[match[0].start() : match[-1].end()]
            if not places:
                raise DataError(f"({said}) may be coordinates, which a resized picture would change")
            if len(scales) > 1:
                raise DataError(f"the question holds coordinates ({said}) and does not say of which picture")
            for number, written in zip(match, next(iter(scales)).numbers(numbers), strict=True):
                changes[number.span()] = written
        out.append(_replaced(text, changes))
    if tuple(out) == texts and re.search(r"\b(?:px|pixels?)\b", _without_sizes(texts[0]), re.IGNORECASE):
        if re.search(r"\d", "".join(texts[1:])):
            raise DataError("the question asks for pixels, which a resized picture would change")
    return tuple(out)


def _without_sizes(text: str) -> str:
    return _replaced(text, {size.span: "" for size in stated_sizes(text)})


def _lists(words: str) -> Iterator[tuple[list[re.Match], bool]]:
    """The number matches of each list of two or four, and whether brackets or four numbers mark it."""
    taken = []
    for match in _LIST.finditer(words):
        taken.append(match.span())
        yield list(_NUMBER.finditer(words, *match.span())), True
    for match in _BARE.finditer(words):
        if not any(start <= match.start() < end for start, end in taken):
            numbers = list(_NUMBER.finditer(words, *match.span()))
            yield numbers, len(numbers) == 4


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
