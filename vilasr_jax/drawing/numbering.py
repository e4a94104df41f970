"""The numbers of images in words, for a conversation that numbers its images from another number than 1."""

import re

_NUMBER = re.compile(r"\d+")
_NAMED = re.compile(  # "image 2", "frames 1 to 3", "<image 1>"; not "in the picture 2 chairs"
    r"(?<!\bthe )(?<!\bthis )(?<!\bthat )(?<!\beach )(?<!\bevery )(?<!\bone )(?<!\d )"
    r"(?:\b(?:images?|pictures?|photos?|frames?|views?)(?:\s+(?:no\.\s*|numbers?\s+|#)?|[-_#]?)"
    r"|\bnumbered\s+(?:from\s+)?|图[像片]?\s?)"
    r"(?P<numbers>\d+(?:(?:\s*[,、&–-]\s*(?:and\s+|or\s+)?|\s+(?:and|or|to|through|and/or)\s+|[和与到])\d+)*)"
    r"(?![\w%°]|[.,:]\d)",
    re.ASCII | re.IGNORECASE,
)


def renumbered(text: str, first: int, count: int) -> str:
    """A text with the images that it numbers from 1 numbered from `first`.

    Numbers of which some are no image's stay, and so does a text that numbers an image 0: it counts from 0.

    Args:
      text: words about images.
      first: the number of the first image.
      count: of the images.

    >>> renumbered("What moved from image 1 to image 3? Compare frames 1, 2 and 3, too.", 0, 3)
    'What moved from image 0 to image 2? Compare frames 0, 1 and 2, too.'
    >>> renumbered("Are there in the picture 2 chairs, as in image 7?", 0, 3)
    'Are there in the picture 2 chairs, as in image 7?'
    """
    if first == 1:
        return text
    found = [(match, [*map(int, _NUMBER.findall(match["numbers"]))]) for match in _NAMED.finditer(text)]
    if any(0 in numbers for _, numbers in found):
        return text
    parts, at = [], 0
    for match, numbers in found:
        if max(numbers) <= count:
            start, end = match.span("numbers")
            words = _NUMBER.sub(lambda number: str(int(number[0]) + first - 1), match["numbers"])
            parts += [text[at:start], words]
            at = end
    return "".join([*parts, text[at:]])
