"""Letters as small bitmaps of our own: the same pixels with every font library."""

import functools

from PIL import Image

_GLYPHS = {
    "A": (".###.", "#...#", "#...#", "#####", "#...#", "#...#", "#...#"),
    "B": ("####.", "#...#", "#...#", "####.", "#...#", "#...#", "####."),
    "C": (".####", "#....", "#....", "#....", "#....", "#....", ".####"),
    "D": ("####.", "#...#", "#...#", "#...#", "#...#", "#...#", "####."),
}


@functools.lru_cache(maxsize=64)
def glyph(letter: str, scale: int) -> Image.Image:
    """A letter's mask, 5 x 7 dots of `scale` pixels."""
    rows = _GLYPHS[letter]
    small = Image.new("1", (len(rows[0]), len(rows)))
    small.putdata([int(char == "#") * 255 for row in rows for char in row])
    return small.resize((small.width * scale, small.height * scale), Image.Resampling.NEAREST)


def plate_unit(side: int) -> int:
    """The margin of a letter's plate, in pixels, on an image with this side."""
    return max(1, side // 112)


def plate_size(side: int) -> tuple[int, int]:
    """Width and height of a letter's plate; the letter's dots are one pixel larger than the unit."""
    unit = plate_unit(side)
    return 5 * (1 + unit) + 4 * unit, 7 * (1 + unit) + 4 * unit
