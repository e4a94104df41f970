"""Labels in every script: drawn with a font that has them, never two alike."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from vilasr_jax.drawing import Box, get_style, render
from vilasr_jax.drawing.bidi import visual_order
from vilasr_jax.drawing.text import BOXED, FONTS, draw_text, runs, text_width

LABELS = (
    "chair table 椅子 桌子 いす つくえ 의자 책상 كرسي طاول شاي 🪑 🛏 😀 стул стол café cafe καρέκλα שולחן "
    "कुर्सी मेज Ա ა 1FA91 U+1FA91 لا ال"
).split()


def picture(text, style="published"):
    return np.asarray(render(Image.new("RGB", (224, 112), "white"), [Box(1, text, 20, 40, 200, 100)], style))


@pytest.mark.parametrize("style", ["published", "clear"])
def test_different_labels_look_different(style):
    # One colour for all, so that it is the letters that differ.
    look = get_style(style, palette=((214, 39, 40),))
    pictures = {label: picture(label, look).tobytes() for label in LABELS}
    empty = picture("", look).tobytes()
    assert empty not in pictures.values()
    for a, b in itertools.combinations(LABELS, 2):
        assert pictures[a] != pictures[b], (a, b)


def test_letters_come_from_a_font_that_has_them():
    labels = ("a (2)", "café", "стул", "كرسي", "椅子", "의자", "🪑")
    fonts = [{number for number, _ in runs(label)} for label in labels]
    assert fonts == [{0}, {0, 1}, {1}, {1}, {2}, {2}, {BOXED}]
    assert [package for package, _ in FONTS] == ["matplotlib", "noto_cjk_sans_jp_regular"]


def test_ascii_labels_are_drawn_by_pil_alone():
    font = ImageFont.load_default(15)
    for text in ("a chair, left (2)", "".join(map(chr, range(32, 127)))):
        ours, plain = (Image.new("RGB", (160, 30), "white") for _ in range(2))
        draw_text(ImageDraw.Draw(ours), (4, 15), text, (9, 9, 9), 15, anchor="lm")
        ImageDraw.Draw(plain).text((4, 15), text, fill=(9, 9, 9), font=font, anchor="lm")
        assert ours.tobytes() == plain.tobytes() and text_width(text, 15) == font.getlength(text)


def test_words_from_right_to_left_are_turned_and_joined():
    assert runs("שלום") == ((1, "םולש"),)
    # kaf (initial) ra (final) sin (initial) ya (final), the last one drawn first
    assert runs("كرسي") == ((1, "\ufef2\ufeb3\ufeae\ufedb"),)
    assert runs("بب") == ((1, "\ufe90\ufe91"),)


# Hebrew letters are written as capitals: A is Alef. The right values are those of the `unicode-bidi` library.
@pytest.mark.parametrize(
    "text, drawn",
    [
        ("ABC 12 DEF", "FED 12 CBA"),
        ("red ABC DEF 12", "red 12 FED CBA"),
        ("AB (CD) EF", "FE (DC) BA"),
        ("AB (cd) EF", "FE (cd) BA"),
        ("red (AB) CD", "red (BA) DC"),
        ("AB red chair CD", "DC red chair BA"),
        ("AB 1.5 (20%)", "(20%) 1.5 BA"),
        ("a-AB [1] > b", "a-[1] BA > b"),
        ("AB > CD", "DC < BA"),
        ("A, B.", ".B ,A"),
        ("12 A", "A 12"),
        ("left 12, right 7", "left 12, right 7"),
    ],
)
def test_directions_are_mixed_as_unicode_says(text, drawn):
    hebrew = {ord("A") + n: 0x5D0 + n for n in range(6)}
    assert visual_order(text.translate(hebrew)) == drawn.translate(hebrew)
    assert "".join(run for _, run in runs(text.translate(hebrew))) == drawn.translate(hebrew)


@given(st.text("אבك12ab ()[].,%-\u05b8", max_size=14))
def test_the_order_of_drawing_loses_no_letter(text):
    pairs = str.maketrans(")]", "([")
    assert sorted(visual_order(text).translate(pairs)) == sorted(text.translate(pairs))


@given(st.text(max_size=12))
def test_any_text_is_drawn(text):
    image = Image.new("RGB", (60, 20), "white")
    draw_text(ImageDraw.Draw(image), (2, 10), text, (0, 0, 0), 12, anchor="lm")
    assert text_width(text, 12) >= 0


def test_deep_brackets_are_fast():
    began = time.process_time()
    visual_order("א" + "(" * 8000 + ")" * 8000)
    assert time.process_time() - began < 2
