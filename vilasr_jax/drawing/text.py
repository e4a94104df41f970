"""Text in any script, drawn with fonts that come with Python packages, so that every machine draws alike.

PIL's own font has ASCII, DejaVu Sans (of matplotlib) other Latin letters, Greek, Cyrillic, Hebrew, Arabic,
Noto Sans CJK Chinese, Japanese and Korean. A character that none of them has (most emoji) is a box with
its code point in hexadecimal digits: two different labels never look alike. Letters that are written from
right to left are put in that order, Arabic ones in their joined forms; no font or library of the system
is used.
"""

import functools
import importlib.util
import io
import itertools
import unicodedata
from pathlib import Path

from fontTools.ttLib import TTFont
from PIL import ImageDraw, ImageFont

from vilasr_jax.drawing.bidi import visual_order
from vilasr_jax.drawing.style import Color
from vilasr_jax.errors import ConfigError

# (package, file in it), in order of preference after PIL's own font.
FONTS = (
    ("matplotlib", "mpl-data/fonts/ttf/DejaVuSans.ttf"),
    ("noto_cjk_sans_jp_regular", "NotoSansCJKjp-Regular.otf"),
)
BOXED = -1  # in place of a font's number: no font has it
Run = tuple[int, str]  # number of a font (0 is PIL's own), characters in the order they are drawn


@functools.lru_cache(maxsize=64)
def get_font(size: int, number: int = 0) -> ImageFont.FreeTypeFont:
    """A font at a size in pixels: PIL's own (0), or one of `FONTS` (from 1 on).

    Raises:
      ConfigError: a font's package is missing.
    """
    if number == 0:
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont), "with a size PIL gives its outline font"
        return font
    return ImageFont.truetype(_path(number), size, layout_engine=ImageFont.Layout.BASIC)


def _path(number: int) -> str:
    package, file = FONTS[number - 1]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"the package {package.replace('_', '-')}, which holds a font, is not installed")
    return str(Path(spec.origin).parent / file)


@functools.cache
def _characters(number: int) -> frozenset[int]:
    """The code points that a font has."""
    source = _path(number) if number else io.BytesIO(get_font(10).font_bytes)
    return frozenset(TTFont(source, lazy=True).getBestCmap())


def _font_of(character: str) -> int:
    code = ord(character)
    return next((number for number in range(len(FONTS) + 1) if code in _characters(number)), BOXED)


@functools.lru_cache(maxsize=1024)
def runs(text: str) -> tuple[Run, ...]:
    """A text's characters in the order they are drawn from left to right, in runs of one font."""
    if text.isascii():
        return ((0, text),)
    pieces = visual_order(_joined(unicodedata.normalize("NFC", text)))
    grouped = itertools.groupby(pieces, _font_of)
    return tuple((number, "".join(characters)) for number, characters in grouped)


def text_width(text: str, size: int) -> float:
    """The width of a text in pixels."""
    return sum(_width(run, size) for run in runs(text))


def draw_text(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, color: Color, size: int, *, anchor: str
) -> None:
    """Draws a text; `anchor` as in PIL: `place` is the left end of the ascender ("la") or middle ("lm")."""
    parts = runs(text)
    if len(parts) == 1 and parts[0][0] == 0:
        draw.text(place, parts[0][1], fill=color, font=get_font(size), anchor=anchor)
        return
    x, y = place
    up, down = get_font(size).getmetrics()
    baseline = round(y + (up if anchor == "la" else (up - down) / 2))
    for run in parts:
        number, characters = run
        if number != BOXED:
            draw.text((x, baseline), characters, fill=color, font=get_font(size, number), anchor="ls")
            x += _width(run, size)
            continue
        for character in characters:
            width = _width((BOXED, character), size)
            top, bottom = baseline - round(0.85 * size), baseline + round(0.2 * size)
            draw.rectangle((round(x) + 1, top, round(x + width) - 2, bottom), outline=color)
            spot = (round(x) + 3, (top + bottom) / 2)
            draw.text(spot, _code(character), fill=color, font=get_font(_small(size)), anchor="lm")
            x += width


def _width(run: Run, size: int) -> float:
    number, characters = run
    if number != BOXED:
        return get_font(size, number).getlength(characters)
    font = get_font(_small(size))
    return sum(round(font.getlength(_code(character))) + 7 for character in characters)


def _code(character: str) -> str:
    return f"{ord(character):04X}"


def _small(size: int) -> int:
    return max(8, round(0.75 * size))


@functools.cache
def _forms() -> dict[str, dict[str, str]]:
    """The forms of each Arabic letter: "isolated", "final", and for most also "initial" and "medial"."""
    forms: dict[str, dict[str, str]] = {}
    for code in range(0xFB50, 0xFEFD):
        kind, _, letters = unicodedata.decomposition(chr(code)).partition("> ")
        if kind in ("<isolated", "<final", "<initial", "<medial") and " " not in letters:
            forms.setdefault(chr(int(letters, 16)), {})[kind[1:]] = chr(code)
    return forms


def _joined(text: str) -> str:
    """Arabic letters in the form that fits their neighbours."""
    forms = _forms()
    places = [at for at, character in enumerate(text) if not unicodedata.combining(character)]
    shaped = list(text)
    for number, at in enumerate(places):
        own = forms.get(text[at])
        if own is None:
            continue
        before = forms.get(text[places[number - 1]], {}) if number else {}
        after = forms.get(text[places[number + 1]], {}) if number + 1 < len(places) else {}
        from_before, to_after = "initial" in before and "final" in own, "initial" in own and "final" in after
        kinds = {(True, True): "medial", (True, False): "final", (False, True): "initial"}
        shaped[at] = own.get(kinds.get((from_before, to_after), "isolated"), text[at])
    return "".join(shaped)
