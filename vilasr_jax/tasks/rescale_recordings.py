"""Recorded conversations and questions as a model reads them: coordinates converted with the images.

Coordinates and sizes in a record refer to its images as they were shown, which its texts state ("width:
448, height: 336"); the stored images may be larger or smaller. An image is read at the size its texts
state, or at its own where they state none. Where the reader's limits allow no such size, image, coordinates
and stated sizes all change. Coordinates also change where the record counts them in other units than the
model: pixels, or 0 to 1000 (`ModelFamily.coordinates`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from vilasr_jax.drawing import tagged_answer
from vilasr_jax.drawing.coordinates import (
    Known,
    Scale,
    check_places,
    convert_items,
    convert_prose,
    convert_sizes,
    frame_of,
)
from vilasr_jax.drawing.numbers import sentence_at
from vilasr_jax.drawing.prompts import check_stated_unit, in_units
from vilasr_jax.drawing.questions import check_unscaled, convert_question
from vilasr_jax.drawing.sizes import (
    PICTURE,
    Frame,
    StatedSize,
    of_picture,
    stated_sizes,
    statements,
    unread_size,
)
from vilasr_jax.errors import DataError
from vilasr_jax.models import ModelFamily, default_family
from vilasr_jax.processing import smart_resize

IMAGE_MARK = "<image>"
DEFAULT_FAMILY = default_family()  # of the reading model, where none is named
CAPTION = 200  # characters after an image in which its size is looked for
ROUNDING = DEFAULT_FAMILY.images.factor  # pixels that a side may be off by, rounded for the recording model


def fit_conversation(
    messages: Sequence[Mapping[str, str]],
    stored: Sequence[Frame],
    min_pixels: int,
    max_pixels: int,
    *,
    units: int | None = None,
    family: ModelFamily = DEFAULT_FAMILY,
) -> tuple[list[Mapping[str, str]], list[Frame]]:
    """The messages of a record and the size each of its images is to be resized to.

    Args:
      messages: {"role", "content"}, with `IMAGE_MARK` where an image is.
      stored: (width, height) of each image as stored.
      min_pixels, max_pixels: of an image as read.
      units: of the record's coordinates, see `frame_of`.
      family: of the model that reads it.

    Raises:
      DataError: sizes or coordinates that can't be brought in line with the images.
    """
    frames = frames_of(messages, stored)
    new = [_read_size(frame, min_pixels, max_pixels, family) for frame in frames]
    for message in messages:
        if message["role"] == "assistant":
            check_places(message["content"], frames, units)
        elif message["role"] == "system":
            check_stated_unit(message["content"], units)
    if new == frames and units == family.coordinates:
        return list(messages), new
    other_unit = units != family.coordinates
    scales = dict(enumerate(_scales(frames, new, units, family), 1))
    sizes = dict(zip(frames, new, strict=True))
    known: Known = {}
    first_user = next((m for m in messages if m["role"] == "user"), None)
    answer = tagged_answer(messages[-1]["content"]) or ""
    converted = [
        {**m, "content": convert_items(m["content"], scales, known)} if m["role"] == "assistant" else m
        for m in messages
    ]
    out: list[Mapping[str, str]] = []
    for message, before in zip(converted, messages, strict=True):
        text = message["content"]
        if before is first_user:
            text, right = _convert_question((text, answer), frames, new, units, family)
            answer = answer if right == answer else ""  # else its numbers are pixels
        if message["role"] == "system" or before is first_user:
            text = convert_sizes(text, sizes, certain=message["role"] == "system")
        else:
            text = convert_prose(text, known, sizes, answer, lengths=new == frames, other_unit=other_unit)
        if message["role"] == "system" and other_unit:
            text = in_units(text, family.coordinates)
        out.append({**message, "content": text})
    return out, new


def fit_question(
    texts: Sequence[str],
    stored: Sequence[Frame],
    min_pixels: int,
    max_pixels: int,
    *,
    units: int | None = None,
    family: ModelFamily = DEFAULT_FAMILY,
) -> tuple[tuple[str, ...], list[Frame]]:
    """A question, its options and its answer (in this order), and the size of each of its images as read.

    Raises:
      DataError: see `fit_conversation`.
    """
    question, *others = texts
    opening = {"role": "user", "content": IMAGE_MARK * len(stored) + question}
    frames = list(stored)
    new = [_read_size(frame, min_pixels, max_pixels, family) for frame in frames]
    if new != frames or _caption(question) or unread_size(statements(question)):
        frames = frames_of([opening], stored)
        new = [_read_size(frame, min_pixels, max_pixels, family) for frame in frames]
    if new == frames and units == family.coordinates:
        return tuple(texts), new  # no image changes, so the numbers of the question are right
    found = _convert_question((question, *others), frames, new, units, family)
    sizes = {old: size for old, size in zip(frames, new, strict=True) if old != size}
    found = tuple(convert_sizes(text, sizes, certain=False) for text in found)
    for text, offered in ((question, _offered(question)), *((t, stated_sizes(t)) for t in found[1:])):
        if any(size.frame in sizes for size in offered):
            raise DataError(f"{text!r} may be the size of a picture, which is resized")
    return found, new


def _scales(
    old: Sequence[Frame], new: Sequence[Frame], units: int | None, family: ModelFamily
) -> list[Scale]:
    """From the coordinates of a record to those that the model writes, of each image."""
    both = zip(old, new, strict=True)
    return [Scale(frame_of(a, units), frame_of(b, family.coordinates)) for a, b in both]


def _convert_question(
    texts: tuple[str, ...], old: Sequence[Frame], new: Sequence[Frame], units: int | None, family: ModelFamily
) -> tuple[str, ...]:
    """The texts of a question with its coordinates as the model writes them."""
    if units is not None and old != new:
        check_unscaled(texts)
    scales = set(_scales(old, new, units, family))
    return convert_question(texts, scales, set(old), other_unit=units != family.coordinates)


def frames_of(messages: Sequence[Mapping[str, str]], stored: Sequence[Frame]) -> list[Frame]:
    """The (width, height) that the coordinates of each image refer to.

    Raises:
      DataError: a stated size that its image can't have had, several that it may have had, one in words
        that can't be read, or none where drawn images have another size than the given ones.
    """
    captions: list[str] = []
    system, given = "", None
    for message in messages:
        if message["role"] == "assistant" and given is None:
            given = len(captions)
        before, *after = message["content"].split(IMAGE_MARK)
        captions += after
        system += before if message["role"] == "system" else ""
    if len(captions) != len(stored):
        raise DataError(f"{len(captions)} {IMAGE_MARK} for {len(stored)} pictures")
    for text in (system, *(caption[:CAPTION] for caption in captions)):
        if said := unread_size(text):
            raise DataError(f"a picture's size is stated in a way that can't be read: {said}")
    for said_size in _of_pictures(system):
        if not any(_fits(said_size, size) for size in stored):
            raise DataError(f"the text says {said_size[0]} x {said_size[1]}, and no picture has this shape")
    own = [_caption(text) for text in captions]
    stated = {size.frame for size in stated_sizes(system)} | {frame for frame in own if frame}
    if not stated:
        return _unstated(stored, len(stored) if given is None else given)
    frames = []
    for index, (frame, size) in enumerate(zip(own, stored, strict=True), 1):
        if frame and not _fits(frame, size):
            raise DataError(
                f"image {index}: the text says {frame[0]} x {frame[1]}, but the picture, "
                f"{size[0]} x {size[1]}, has another shape"
            )
        fitting = {other for other in stated if _fits(other, size)} - {size}
        if not frame and len(fitting) > 1 and size not in stated:
            raise DataError(f"image {index}: its size is not stated, and {len(fitting)} of those stated fit")
        frames.append(frame or (size if size in stated or not fitting else next(iter(fitting))))
    return frames


def _unstated(stored: Sequence[Frame], given: int) -> list[Frame]:
    """The frames where no size is stated: drawn images have the size that was shown, the first `given`
    images may be stored at another."""
    base, drawn = set(stored[:given]), set(stored[given:])
    if drawn <= base:
        return list(stored)
    if len(base) == len(drawn) == 1 and _fits(*drawn, *base):
        return [*drawn] * len(stored)
    raise DataError("no size is stated, and drawn pictures have another size than those they were drawn on")


def _of_pictures(text: str) -> list[Frame]:
    """The sizes that a text states of pictures."""
    sizes = stated_sizes(text)
    return [s.frame for s in sizes if of_picture(text, s) or PICTURE.search(sentence_at(text, s.start))]


def _caption(text: str) -> Frame | None:
    """The size that the words right after an image state of it."""
    text = text[:CAPTION]
    opening = len(text) - len(re.sub(r"\A\W+", "", text))
    sizes = (s for s in stated_sizes(text) if s.span[0] == opening or of_picture(text, s))
    sizes = (s for s in sizes if s not in _offered(text))
    size = next(sizes, None)
    if size is None:
        return None
    return size.frame if size.start < 24 or PICTURE.search(text[: size.start]) else None


def _offered(text: str) -> list[StatedSize]:
    """The sizes among which a sentence asks to choose ("448 x 336 or 896 x 672?")."""
    sizes = [size for size in stated_sizes(text) if "?" in sentence_at(text, size.start)]
    return [size for size in sizes if len(stated_sizes(sentence_at(text, size.start))) > 1]


def _fits(frame: Frame, size: Frame) -> bool:
    """Whether an image of this size may have been shown at that: scaled, and its sides rounded."""
    if frame == size:
        return True
    least = max((side - ROUNDING) / full for side, full in zip(frame, size, strict=True))
    most = min((side + ROUNDING) / full for side, full in zip(frame, size, strict=True))
    return least <= most


def _read_size(frame: Frame, min_pixels: int, max_pixels: int, family: ModelFamily) -> Frame:
    height, width = smart_resize(frame[1], frame[0], family.images.factor, min_pixels, max_pixels)
    return width, height
