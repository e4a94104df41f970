"""Coordinates in questions, their options and answers, converted from one frame of an image to another."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from vilasr_jax.drawing.coordinates import PLACES, Scale
from vilasr_jax.drawing.numbers import (
    FLAGS,
    LENGTH,
    PIXELS,
    Series,
    Span,
    blanked,
    large_numbers,
    named_numbers,
    plain,
    replaced,
    sentences,
    series_of,
    short,
)
from vilasr_jax.drawing.sizes import SMALLEST, UNIT, Frame, stated_sizes
from vilasr_jax.errors import DataError

_BOXES = re.compile(  # words that make numbers boxes in pixels
    r"\bbbox\w*|\bbounding[ -]box|\b(?:which|what)\b[^.?!\n]{0,30}\bbox(?:es)?\b"
    r"|\bbox(?:es)?\b[^.?!\n\d]{0,20}[\[(]\s*\d",
    FLAGS,
)
_UNIT = re.compile(rf"\b{UNIT}\b|[%°]", FLAGS)
_OTHER = re.compile(  # words of numbers that aren't pixels
    rf"\b(?:{UNIT}|cells?|grids?|rows?|columns?|orders?|steps?|scale|normali[sz]ed)\b|[%°]", FLAGS
)
_EXAMPLE = re.compile(r"\(e\.g\., [\d.]+ or [\d.]+\)")  # of the answer's form
_NORMALISED = re.compile(
    r"normali[sz]ed|\b0\s?(?:-|–|to|and)\s?(1000|1,000|100|1)\b|\bscale of (1000|1,000|100|1)\b", FLAGS
)
_SIDE = r"(?:width|height|size|resolution|dimensions?)"
_PICTURE = r"(?:the |this |each |your )?(?:\w+ )?(?:image|picture|photo|frame)s?\b"
_ASKS = re.compile(  # for a place or a size in pixels
    r"\bcoordinates?\b|\b(?:horizontal|vertical) (?:positions?|locations?|offsets?|extents?)\b"
    r"|(?<!\d )\b[xy]\b(?! ?\d)|\bwhere\b[^.?!]*\b(?:edges?|corners?|cent(?:re|er)s?)\b"
    r"|\b(?:which|what) (?:\w+ )?(?:rows?|columns?)\b"
    rf"|\b{_SIDE}(?: and {_SIDE})? of {_PICTURE}|\bimage(?:'s)? {_SIDE}\b"
    rf"|\bhow (?:wide|high|tall|large|big) (?:is|are) {_PICTURE}|坐标|像素",
    FLAGS,
)
_REQUEST = re.compile(r"[?？]\s*\Z|\A\s*(?:please )?(?:give|state|report|tell|return|find|write)\b", FLAGS)


def convert_question(
    texts: tuple[str, ...],
    scales: Collection[Scale],
    sizes: Collection[Frame] | None = None,
    other_unit: bool = False,
) -> tuple[str, ...]:
    """A question with its options and answer, coordinates in pixels of its images converted.

    Lists of two or four numbers are coordinates where the texts speak of pixels, bounding boxes or "which
    box", and of no other unit. Numbers stay where they have another unit or the texts call coordinates
    normalised, and where all are below `SMALLEST` (cells of a grid). All else is refused.

    Args:
      texts: the question first.
      scales: of the question's images.
      sizes: (width, height) that the images have, where the scales are not from these.
      other_unit: coordinates are no pixels any more, or are now; then the texts must not say which.

    Raises:
      DataError: it is unknown whether numbers are coordinates, or of which image.
    """
    if all(scale.old == scale.new for scale in scales):
        return texts
    sizes = {scale.old for scale in scales} if sizes is None else sizes
    rests = [_words(text, sizes) for text in texts]
    joined = "\n".join(rests)
    found = [[s for s in series_of(rest) if not s.other] for rest in rests]
    pixels = bool(PIXELS.search(joined))
    if limit := _normalised_to(joined):
        if pixels or any(abs(float(n)) > limit for some in found for series in some for n in series.texts):
            raise DataError(f"the question speaks of coordinates up to {limit}, and of others")
        return texts
    places, other = PLACES.search(joined), _OTHER.search(joined)
    sure = {2: pixels, 4: pixels or bool(_BOXES.search(joined))} if not other else {}
    lengths = {len(series.texts) for some in found for series in some if series.large}
    out: list[str] = []
    for text, rest, some in zip(texts, rests, found, strict=True):
        changes: dict[Span, str] = {}
        for series in some:
            size = len(series.texts)
            marked = series.bracketed or size >= 4
            cells = not lengths and (other or not any(sure.values()))
            fraction = not lengths and all(abs(float(number)) <= 1 for number in series.texts)
            if cells or fraction or not (marked or (series.large and (places or series.at))):
                continue
            certain = marked and sure.get(size) and (series.large or (series.bracketed and size in lengths))
            if not certain or not series.plain:
                raise DataError(f"({series.said}) may be coordinates, which a resized picture would change")
            changes |= dict(zip(series.spans, _converted(series, scales), strict=True))
        rests[len(out)] = blanked(rest, changes)
        out.append(replaced(text, changes))
    _check_rest(rests, pixels)
    if pixels and tuple(out) == texts and re.search(r"\d", "".join(texts[1:])):
        raise DataError("the question asks for pixels, which a resized picture would change")
    if other_unit and pixels and tuple(out) != texts:
        raise DataError("the question calls coordinates pixels, which are now of another unit")
    return tuple(out)


def check_unscaled(texts: Sequence[str]) -> None:
    """Refuses a question in pixels whose pictures are resized; its coordinates are of another unit.

    Raises:
      DataError: the texts speak of pixels.
    """
    for text in texts:
        if said := PIXELS.search(_EXAMPLE.sub("", text)):
            around = text[max(0, said.start() - 40) : said.end()]
            raise DataError(
                f"the question speaks of pixels, which a resized picture would change: {short(around)}"
            )


def _words(text: str, frames: Collection[Frame]) -> str:
    """A text without the sizes of its images, those that have another unit, and examples of an answer."""
    sizes = [s for s in stated_sizes(text) if s.frame in frames or not PIXELS.search(text, *s.span)]
    spans = [*(size.span for size in sizes), *(example.span() for example in _EXAMPLE.finditer(text))]
    return blanked(plain(text), spans)


def _normalised_to(text: str) -> int:
    """The largest value of coordinates that the text calls normalised; 0 where it calls none so."""
    for sentence in sentences(text):
        said = _NORMALISED.search(sentence)
        if said and PLACES.search(sentence):
            return int((said[1] or said[2] or "1000").replace(",", ""))
    return 0


def _converted(series: Series, scales: Collection[Scale]) -> tuple[str, ...]:
    """The coordinates of a question's image at its new size."""
    if len(scales) > 1:
        raise DataError(f"the question holds coordinates ({series.said}) and does not say of which picture")
    (scale,) = scales
    if not all(0 <= float(n) <= scale.old[place % 2] for place, n in enumerate(series.texts)):
        raise DataError(f"({series.said}) is outside of its picture, {scale.old[0]} x {scale.old[1]}")
    return scale.numbers(series.texts)


def _check_rest(rests: Sequence[str], pixels: bool) -> None:
    """Refuses coordinates of a question that are not written as lists."""
    requests = " ".join(filter(_REQUEST.search, sentences(rests[0]))) or rests[0]
    places = _ASKS.search(requests) and not _UNIT.search(requests)
    least = 0 if pixels else SMALLEST
    for number, rest in enumerate(rests):
        found = next(named_numbers(rest, least), None)
        if pixels and not found:
            found = LENGTH.search(rest)
        if not found and (pixels or (places and number)):
            found = next(large_numbers(rest), None)
        if found:
            raise DataError(f"{short(found[0])} may be in pixels, which a resized picture would change")
