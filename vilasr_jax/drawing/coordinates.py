"""Coordinates and sizes that are written in texts, converted from one frame of an image to another.

A frame is the (width, height) that coordinates refer to: an image's pixels at some size, or (1000, 1000) for
coordinates that run from 0 to 1000. Texts are changed number by number; every other character stays as it is.

>>> half = Scale((448, 336), (224, 168))
>>> item = '{"index": 1, "bbox_2d": [300, 200, 440, 330], "label": "chair"}'
>>> convert_items(item, {1: half}, {})
'{"index": 1, "bbox_2d": [150, 100, 220, 165], "label": "chair"}'
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from vilasr_jax.drawing.numbers import (
    IN_PIXELS,
    LENGTH,
    PIXELS,
    Series,
    Span,
    blanked,
    large_numbers,
    named_numbers,
    plain,
    replaced,
    sentence_at,
    series_of,
    short,
)
from vilasr_jax.drawing.sizes import SMALLEST, Frame, of_picture, stated_sizes
from vilasr_jax.drawing.spans import PLURAL, changed_extents, is_span, names_sides
from vilasr_jax.errors import DataError

Known = MutableMapping[tuple[str, ...], set[tuple[str, ...]]]  # coordinates as written, and as converted

_OBJECT = re.compile(r'\{(?:[^{}"]++|"(?:[^"\\]|\\.)*+")*+\}')
_VALUE = re.compile(r'"(\w+)"\s*:\s*(\[(?:[^\[\]"{}]|\[[^\[\]"{}]*\])*\]|"(?:[^"\\]|\\.)*")')
_INDEX = re.compile(r'"(index|img_idx)"\s*:\s*"?\s*(\d{1,6})\s*(?:\.0)?"?\s*[,}]')
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d{1,9}(?:\.\d{1,30})?(?:[eE][-+]?\d{1,2})?(?![\w.])", re.ASCII)
_GRID = re.compile(r"\b(?:cells?|grids?|rows?|columns?|steps?|moves?)\b", re.IGNORECASE)
PLACES = re.compile(
    r"\b(?:pixels?|px|coordinates?|bbox\w*|box(?:es)?|bounding|points?|2d|positions?|locat\w+|regions?"
    r"|corners?|cent(?:re|er)s?|edges?)\b|坐标|像素|边缘",
    re.ASCII | re.IGNORECASE,
)
_COUNTED = re.compile(  # numbers that aren't pixels by the words before them
    r"(?:\b(?:frames?|images?|pictures?|views?|steps?|turns?|rooms?|pages?|options?|index|numbers?|no\.)\W{0,3}"
    r"(?:(?:\w+ ){0,4}(?:is|number|says|reads)\W)?(?:\d{1,2}(?:,? and |,? or |[,&–-] ?| to | through ))*"
    r"|\b(?:there (?:are|is|were)|(?:total|count(?:ed|s|ing)?)(?: of| is)?|has|have|holds?|contains?)\W{1,2}"
    r"(?:(?:about|around|exactly|only|roughly|approximately|at least) )?"
    r"|\b(?:in|since|year|until|from) (?=(?:19|20)\d\d\b)|[$€£¥#№])\Z",
    re.ASCII | re.IGNORECASE,
)
_QUANTITY = re.compile(  # "more than 100 bottles", "with 32 frames"
    r"\b(?:(?:more|fewer|less) than|over|nearly|almost|roughly|about|around|approximately|only|at least"
    r"|with) \Z",
    re.ASCII | re.IGNORECASE,
)
_EXTENT = re.compile(  # what the width, height or centre of a box is called
    r"\b(?:wide|widths?|tall|high|heights?|long|lengths?|size|middle|mid\w*|cent(?:re|er)\w*)\b|[宽高长中]|\d\s?[x×]\s?\d",
    re.ASCII | re.IGNORECASE,
)
_NEAR = 24  # characters from such a word to its number
_BEFORE = 60  # characters in which such words are looked for
_ANSWER = re.compile(r"<answer>.*?(?:</answer>|\Z)", re.DOTALL)


def frame_of(size: Frame, units: int | None) -> Frame:
    """What coordinates in an image of `size` refer to: its pixels (None), or the number of `units` a side.

    >>> frame_of((448, 336), None), frame_of((448, 336), 1000)
    ((448, 336), (1000, 1000))
    """
    return size if units is None else (units, units)


@dataclass(frozen=True)
class Scale:
    """From one frame of an image to another."""

    old: Frame
    new: Frame

    def number(self, text: str, axis: int) -> str:
        """A coordinate (axis 0: x, 1: y) in the new frame, with as many decimals as it was written with."""
        if self.old[axis] == self.new[axis]:
            return text
        decimals = len(text.lower().partition("e")[0].partition(".")[2])
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

    Sizes in JSON items stay. Unless the text is `certain` to speak of images, a bare "448 x 336" is
    replaced only next to words that make it an image's.
    """
    changes: dict[Span, str] = {}
    items = [item.span() for item in _items(text)]
    for size in stated_sizes(text):
        inside = any(a <= size.start < b for a, b in items)
        if size.frame in new and (certain or of_picture(text, size)) and not inside:
            width, height = new[size.frame]
            changes |= {size.w: str(width), size.h: str(height)}
    return replaced(text, changes)


def convert_items(text: str, scales: Mapping[int, Scale], known: Known) -> str:
    """A turn with the coordinates of its JSON items converted, each by the scale of the image it names.

    Args:
      text: what an assistant wrote.
      scales: of each image, by its index (from 1).
      known: gets the coordinates that were found, for `convert_prose`.

    Raises:
      DataError: an item's image or coordinates can't be read, or nothing is left of its box or line.
    """
    changes: dict[Span, str] = {}
    for item in _items(text):
        index = _index(item[0])
        if index is None or index not in scales:
            what = "names no image" if index is None else f"names image {index}, which is not there"
            raise DataError(f"an item with coordinates {what}: {short(item[0])}")
        scale, places = scales[index], []
        for value in _values(item[0]):
            at = item.start() + value.start(2)
            numbers = list(_NUMBER.finditer(value[2]))
            if len(numbers) not in (2, 4) or re.search(r"[\w%.]", _NUMBER.sub(" ", value[2])):
                raise DataError(f"{value[1]} holds no coordinates that can be read: {short(value[0])}")
            old = tuple(number[0] for number in numbers)
            new = scale.numbers(old)
            places.append((old, new))
            for number, written in zip(numbers, new, strict=True):
                changes[number.start() + at, number.end() + at] = written
        _check_extent(places, item[0])
        for old, new in places:
            for first, end in {(0, len(old)), (0, 2), (len(old) - 2, len(old))}:
                known.setdefault(old[first:end], set()).add(new[first:end])
    return replaced(text, changes)


def check_places(text: str, sizes: Sequence[Frame], units: int | None = None) -> None:
    """Refuses coordinates that can't be places in the image that their item names.

    Args:
      text: what an assistant wrote.
      sizes: (width, height) of each image.
      units: of coordinates, see `frame_of`.

    Raises:
      DataError: coordinates are fractions of 1, or more than `SMALLEST` outside the image.
    """
    frames = [frame_of(size, units) for size in sizes]
    for item in _items(text):
        index = _index(item[0])
        if index is None or not 1 <= index <= len(frames):
            continue
        frame = frames[index - 1]
        for value in _values(item[0]):
            texts = [number[0] for number in _NUMBER.finditer(value[2])]
            numbers = [float(text) for text in texts]
            if "." in "".join(texts) and max(map(abs, numbers)) <= 1:
                what = "pixels" if units is None else f"from 0 to {units}"
                raise DataError(f"coordinates are fractions, not {what}: {short(item[0])}")
            for place, number in enumerate(numbers):
                if not -SMALLEST <= number <= frame[place % 2] + SMALLEST:
                    image = f"the {frame[0]} x {frame[1]} image" if units is None else f"0 to {units}"
                    raise DataError(f"{texts[place]} is outside {image}: {short(item[0])}")


def _items(text: str) -> Iterator[re.Match]:
    """The JSON objects of a text that hold coordinates."""
    return (item for item in _OBJECT.finditer(text) if _values(item[0]))


def _index(item: str) -> int | None:
    """The image that an item names, from 1."""
    found = _INDEX.search(item)
    return int(found[2]) + (found[1] == "img_idx") if found else None


def _values(item: str) -> list[re.Match]:
    """The keys of an item whose values are coordinates."""
    found, numbered = _VALUE.finditer(item), '"index"' in item or '"img_idx"' in item
    return [v for v in found if v[1].endswith("_2d") or (v[2][0] == "[" and numbered)]


def _check_extent(places: list[tuple[tuple[str, ...], tuple[str, ...]]], item: str) -> None:
    """A box that had an area, or a line that had a length, must still have one."""
    if len(places) == 2 and all(len(old) == 2 for old, _ in places):  # from a start to an end
        (a, b), (c, d) = places
        if a != c and b == d:
            raise DataError(f"nothing is left of a line at this size: {short(item)}")
    for old, new in places:
        if len(old) == 4 and any(old[i] != old[i + 2] and new[i] == new[i + 2] for i in (0, 1)):
            raise DataError(f"nothing is left of a box at this size: {short(item)}")


def convert_prose(
    text: str,
    known: Known,
    sizes: Mapping[Frame, Frame] | None = None,
    answer: str = "",
    lengths: bool = False,
    other_unit: bool = False,
    all_images: Scale | None = None,
) -> str:
    """The words around the items, with coordinates that `convert_items` has met converted as there.

    Args:
      text: what an assistant wrote.
      known: from `convert_items`.
      sizes: stated sizes of images to replace.
      answer: its numbers are no coordinates, and may be said.
      lengths: those with their unit ("40 pixels") may be said: they are those of the image as it is shown.
      other_unit: the converted coordinates are no pixels any more, or are now.
      all_images: the scale of lists that no item holds, where every list is a place, and this is the scale
        of every image.

    Raises:
      DataError: the words hold coordinates or lengths in pixels whose image is unknown, or a number that
        is one of the known coordinates, is called a box's width, height or centre and is one, or is the
        place of an edge or a span by the words of its sentence ("x goes from 305 to 412").
    """
    said = {Fraction(number[0]) for number in large_numbers(plain(answer))}
    drawn, parts, at = _drawn(known, said), [], 0
    for item in (*_items(text), None):
        words = text[at : item.start() if item else len(text)]
        if other_unit:
            _check_unit(words)
        parts.append(_prose(words, known, drawn, sizes or {}, lengths, all_images))
        if item:
            parts.append(item[0])
            at = item.end()
    return "".join(parts)


@dataclass(frozen=True)
class _Drawn:
    """Numbers of a conversation's items that change with its images."""

    coordinates: set[Fraction]
    extents: set[Fraction]  # widths, heights and centres of boxes
    said: set[Fraction]  # numbers of the answer

    def holds(self, words: str, number: re.Match) -> bool:
        """Whether a number of the words may be one of them; an extent only near a word for it."""
        value = abs(Fraction(number[0]))
        near = words[max(0, number.start() - _NEAR) : number.end() + _NEAR]
        return value in self.coordinates or (value in self.extents and bool(_EXTENT.search(near)))


def _drawn(known: Known, said: set[Fraction]) -> _Drawn:
    """Those of the known coordinates, without the numbers that the answer says."""
    coordinates: set[Fraction] = set()
    extents: set[Fraction] = set()
    for texts in (old for old, new in known.items() if new != {old}):
        numbers = [*map(Fraction, texts)]
        coordinates.update(numbers)
        if len(numbers) == 4:
            for low, high in (numbers[0::2], numbers[1::2]):
                middle = (low + high) / 2
                extents |= {abs(high - low), middle, *map(Fraction, (math.floor(middle), math.ceil(middle)))}
    return _Drawn(coordinates - said, extents - said, said)


def _check_unit(words: str) -> None:
    """Refuses coordinates whose sentence calls them pixels, when their unit changes."""
    said = plain(words)
    places = [series for series in series_of(said) if _is_place(series, said)]
    spans = [span for series in places for span in series.spans]
    lengths = [
        m.span() for m in IN_PIXELS.finditer(said) if not any(m.start() <= a < m.end() for a, _ in spans)
    ]
    rest = blanked(said, lengths)
    for series in places:
        if PIXELS.search(sentence := sentence_at(rest, series.start)):
            raise DataError(f"the words call coordinates pixels, and their unit changes: {short(sentence)}")


def _prose(
    words: str,
    known: Known,
    drawn: _Drawn,
    sizes: Mapping[Frame, Frame],
    lengths: bool,
    all_images: Scale | None,
) -> str:
    said = plain(words)
    if stray := re.search(r"(?<!\w)\w*_2d\W{0,6}\d", said):
        raise DataError(f"coordinates outside a JSON item: {short(words[stray.start() :])}")
    changes: dict[Span, str] = {}
    for series in series_of(said):
        if _is_place(series, said):
            new = all_images.numbers(series.texts) if all_images else _place(series, said, known)
            changes |= dict(zip(series.spans, new, strict=True))
    rest = blanked(said, changes)
    for size in stated_sizes(words):
        own = size.frame in sizes and of_picture(words, size)
        if own:
            width, height = sizes[size.frame]
            changes |= {size.w: str(width), size.h: str(height)}
        if own or not (
            LENGTH.search(words, *size.span) or (drawn.coordinates | drawn.extents).issuperset(size.frame)
        ):
            if drawn.coordinates and not own and names_sides(words, size):
                raise DataError(f"{size.frame[0]} x {size.frame[1]} may be the size of a drawing")
            rest = blanked(rest, [size.span])
    if lengths:
        rest = blanked(rest, [length.span() for length in IN_PIXELS.finditer(rest)])
    if length := LENGTH.search(rest) or next(named_numbers(rest, least=0), None):
        raise DataError(f"the words hold a length in pixels: {short(length[0])}")
    rest = blanked(rest, [answer.span() for answer in _ANSWER.finditer(rest)])
    for number in large_numbers(rest):
        before = rest[max(0, number.start() - _BEFORE) : number.start()]
        counted = _COUNTED.search(before) or (_QUANTITY.search(before) and PLURAL.match(rest, number.end()))
        if drawn.holds(rest, number) and not counted:
            around = short(f"{before.split(chr(10))[-1]}{number[0]}")
            raise DataError(f"{number[0]} may be a coordinate of a drawing: {around}")
        if drawn.coordinates and not counted and is_span(rest, number, drawn.said):
            raise DataError(f"{number[0]} may be where a drawing begins or ends: {short(before + number[0])}")
    if drawn.coordinates and (change := next(changed_extents(rest), None)):
        raise DataError(f"the words hold a length in pixels: {short(change[0])}")
    return replaced(words, changes)


def _is_place(series: Series, words: str) -> bool:
    """Whether numbers in the words of a turn are a point or a box."""
    if series.other:
        return False
    if series.bracketed or (series.large and (len(series.texts) >= 4 or series.at)):
        return True
    return series.large and bool(PLACES.search(sentence_at(words, series.start)))


def _place(series: Series, words: str, known: Known) -> tuple[str, ...]:
    """A point or box as the items have it; cells of a grid stay."""
    new = known.get(series.texts, set())
    pixels = series.large or not _GRID.search(sentence_at(words, series.start))
    if pixels and (len(new) != 1 or series.thousands):
        raise DataError(f"the words hold coordinates ({series.said}), and no item says of which image")
    return next(iter(new)) if pixels else series.texts
