"""Sizes of pictures that texts state in words."""

from __future__ import annotations

import re
from dataclasses import dataclass

Frame = tuple[int, int]  # width, height
SMALLEST = 28  # a side that a picture has at least; smaller numbers aren't sizes

UNIT = (  # of numbers that aren't pixels
    r"(?:m|cm|mm|km|met(?:er|re)s?|centimet(?:er|re)s?|feet|ft|inch(?:es)?|percent|degrees?|seconds?)"
)
_OTHER_UNIT = (
    r"(?:s|secs?|min|minutes?|hours?|h|days?|weeks?|months?|years?|yards?|miles?|k[mp]h|mph|kg|fps|sq|square)"
)
UNIT_AFTER = re.compile(
    rf"[\])]?[\s-]?(?:(?:{UNIT}|{_OTHER_UNIT})\b|['′″]|[%°]|平?方?厘?毫?公?[米分里]|[度秒年月日个把张只岁层帧])",
    re.IGNORECASE,
)

_PX = r"(?:\s?(?:px|pixels?)\b)?"
_SEP = r"\s?(?:,|\band\b|\bby\b|[x×*])\s?"
_W, _H = r"(?<![A-Za-z])(?:width\b|w(?=\s?[=:]))", r"(?<![A-Za-z])(?:height\b|h(?=\s?[=:]))"
_GAP, _GAP2 = r"[^\d.!?]{0,30}?", r"[^\d.!?]{0,20}?"
_WN, _HN = rf"(?<![\w.])(?P<w>\d+){_PX}", rf"(?<![\w.])(?P<h>\d+){_PX}"
_END = rf"(?!\w|\.\d|\s?{UNIT}\b|%)"
_WIDE, _HIGH = r"[ -](?:wide|in width)\b", r"[ -](?:high|tall|in height)\b"
_STATED = [  # how texts state a size
    re.compile(pattern + _END, re.IGNORECASE)
    for pattern in (
        rf"\bh\s?[x×*,]\s?w\b\W{{0,4}}{_HN}{_SEP}(?P<w>\d+){_PX}",
        rf"\bw\s?[x×*,]\s?h\b\W{{0,4}}{_WN}{_SEP}(?P<h>\d+){_PX}",
        r"(?<![A-Za-z])w(?P<w>\d{2,5})\W{1,3}h(?P<h>\d{2,5})",
        rf"\bshape\b\W{{1,4}}{_HN},\s?{_WN},\s?3\b",
        rf"\bshape\b\W{{1,4}}3,\s?{_HN},\s?{_WN}",
        rf"{_WN}{_WIDE}{_GAP2}{_HN}{_HIGH}",
        rf"{_HN}{_HIGH}{_GAP2}{_WN}{_WIDE}",
        rf"\bwidth\W{{1,3}}(?:and |by |[x×] ?)?(?:its |the )?height{_GAP}{_WN}{_SEP}{_HN}",
        rf"\bheight\W{{1,3}}(?:and |by |[x×] ?)?(?:its |the )?width{_GAP}{_HN}{_SEP}{_WN}",
        rf"{_W}{_GAP}{_WN}{_GAP2}{_H}{_GAP}{_HN}",
        rf"{_H}{_GAP}{_HN}{_GAP2}{_W}{_GAP}{_WN}",
        rf"\b(?:sizes?|resolutions?|dimensions?)\b{_GAP}{_WN}{_SEP}(?P<h>\d+){_PX}",
    )
]
_CROSS = re.compile(
    rf"(?<![\w.])(?P<w>\d{{2,5}}){_PX}\s?(?:[x×*]|\bby\b)\s?(?P<h>\d{{2,5}}){_PX}{_END}", re.IGNORECASE
)
_BEFORE = re.compile(r"\b(?:image|picture|frame|photo|pixels?|px)s?\W{1,3}(?:\w+\W+){0,2}\Z", re.IGNORECASE)
_AFTER = re.compile(r"\W{0,3}(?:image|picture|frame|photo)", re.IGNORECASE)
_SIZE_WORD = re.compile(r"\b(?:width|wide|height|high|tall|size|resolution|dimensions?)\b", re.IGNORECASE)
_CHINESE = re.compile(
    r"(?:宽|高|尺寸|分辨率|大小)(?:\D{0,6}\d{2,5}(?:\s?像素|\D{1,6}\d{2,5})|度?\s?[:：为]\s?\d{2,5})"
)
_SENTENCES = re.compile(r"(?<=[.!?])\s|\n")
PICTURE = re.compile(r"\b(?:image|picture|frame|photo)s?\b", re.IGNORECASE)


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
    "448 x 336", "HxW: 336x448", "shape=(336, 448, 3)"), in order; none with a side below `SMALLEST`."""
    found: list[StatedSize] = []
    for pattern in (*_STATED, _CROSS):
        for match in pattern.finditer(text):
            frame, (start, end) = (int(match["w"]), int(match["h"])), match.span()
            size = StatedSize(frame, match.span("w"), match.span("h"), (start, end), pattern is not _CROSS)
            if min(frame) >= SMALLEST and all(end <= o.span[0] or o.span[1] <= start for o in found):
                found.append(size)
    return sorted(found, key=lambda size: size.start)


def of_picture(text: str, size: StatedSize) -> bool:
    """Whether words name width and height, or words next to a bare "448 x 336" make it a picture's."""
    start, end = size.span
    pixels = re.search(r"px|pixel", text[start:end], re.IGNORECASE)
    near = _BEFORE.search(text[max(0, start - 60) : start]) or _AFTER.match(text, end)
    return bool(size.named or pixels or near)


def unread_size(text: str) -> str:
    """What looks like a size in a text of which `stated_sizes` reads none; empty where nothing does.

    That is a sentence with a word like width or size and two numbers of at least `SMALLEST` without a unit,
    which speaks of an image or begins the text.
    """
    if stated_sizes(text):
        return ""
    if chinese := _CHINESE.search(text):
        return chinese[0]
    at = 0
    for sentence in _SENTENCES.split(text):
        numbers = [n for n in re.finditer(r"(?<![\w.,])\d{2,5}(?!\w|[.,]\d)", sentence)]
        large = [n for n in numbers if int(n[0]) >= SMALLEST and not UNIT_AFTER.match(sentence, n.end())]
        begins = not text[:at].strip() and not sentence.endswith("?")
        if len(large) > 1 and _SIZE_WORD.search(sentence) and (begins or PICTURE.search(sentence)):
            return " ".join(sentence.split())[:80]
        at += len(sentence) + 1
    return ""


def statements(text: str) -> str:
    """The text without the sentences that end in a question mark."""
    lines = (part for line in _SENTENCES.split(text) for part in re.split(r"(?<=[。！？])", line))
    return " ".join(line for line in lines if not line.rstrip().endswith(("?", "？")))
