"""Numbers in words: none that is a coordinate stays while its picture shrinks, and no other one changes."""

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tasks.test_rescale_recordings import BOX, SMALL, record, turn
from vilasr_jax.drawing.coordinates import Scale, convert_items, convert_prose
from vilasr_jax.drawing.numbers import blanked, plain, series_of
from vilasr_jax.drawing.questions import convert_question
from vilasr_jax.errors import DataError
from vilasr_jax.tasks.rescale_recordings import fit_conversation, fit_question, frames_of

HALF, SAME = Scale((448, 336), (224, 168)), Scale((448, 336), (448, 336))
PIECES = (
    "300 200 440 330 3 .5 3e2 1,200 , / | ( ) [ ] < > （ ， ） - x= y of at to row edge left corner box "
    'pixels 坐标 米 <answer> width 448 x 336 {"index": 1, "bbox_2d": "label" } 0-1000 ? . \n'
)
WORDS = st.lists(st.sampled_from(PIECES.split(" ")) | st.text(max_size=4), max_size=25).map(" ".join)


def fitted(think: str, answer: str = "there", question: str = "Where is it?") -> str:
    """What a turn thinks after its picture, on which [300, 200, 440, 330] is drawn, shrank."""
    messages = record(turn(BOX % 1, think=think), question=question, answer=answer)
    text = fit_conversation(messages, [(448, 336)] * 2, 784, SMALL)[0][2]["content"]
    return re.fullmatch(r"<think> (.*) </think>.*", text, re.DOTALL)[1]


@pytest.mark.parametrize(
    "texts",
    [
        ("What is the x-coordinate of the chair's centre?", "370"),
        ("At what x is the left edge of the chair?", "300"),
        ("At which column is the left edge?", "300"),
        ("Where is the left edge?", "300"),
        ("What is the width of the image?", "896"),
        ("Where is it? Give the x value.", "300"),
        ("How wide is the image?", "A. 896", "B. 448", "A"),
        ("What is at row 200, column 300?", "chair"),
        ("What is at x300, y200?", "chair"),
        ("What is at (1,200, 300)?", "chair"),
        ("What is in box 300/200/440/330?", "chair"),
        ("What is at 300 200?", "chair"),
        ("坐标（300，200）是什么？", "椅子"),
        ("The marker at u=310, v=220: what is it?", "chair"),
        ("What is the horizontal position of the chair?", "370"),
        ("椅子的横坐标是多少？", "370"),
        ("Is the image 1792x1344 or 896x672?", "896x672"),
    ],
)
def test_a_request_for_pixels_is_refused_if_its_picture_shrinks(texts):
    assert fit_question(texts, [(896, 672)], 784, 896 * 672) == (texts, [(896, 672)])
    with pytest.raises(DataError):
        fit_question(texts, [(896, 672)], 784, SMALL)


def test_pixels_of_a_question_are_converted_in_any_notation():
    assert convert_question(("Pixel (3e2, 2e2) or （300，200）?", "a"), {HALF}) == (
        "Pixel (150, 100) or （150，100）?",
        "a",
    )


@pytest.mark.parametrize(
    "texts",
    [
        ("How many rows of seats are there?", "30"),
        ("How many books are near the corner?", "45"),
        ("What is the height of the man in the image in cm?", "180"),
        ("What is the angle at the corner?", "A. 30 degrees", "B. 45 degrees", "B"),
        ("In which frame does the dog first appear?", "30"),
        ("What year is written on the sign?", "1987"),
        ("Measuring from the closest point of each object, how far is it (in meters)?", "32.5"),
        ("Which box? Coordinates are normalized to a 0-1000 scale.", "A. [1, 2, 300, 400]", "A"),
    ],
)
def test_other_numbers_of_a_question_stay(texts):
    assert fit_question(texts, [(896, 672)], 784, SMALL)[0] == texts


def test_a_size_among_choices_is_not_the_pictures_own():
    question = [{"role": "user", "content": "<image>Is the image 1792x1344 or 896x672?"}]
    assert frames_of(question, [(896, 672)]) == [(896, 672)]


@pytest.mark.parametrize(
    ("think", "converted"),
    [
        ("(300 200)", "(169 100)"),
        ("corner 300 200", "corner 169 100"),
        ("<bbox>300 200 440 330</bbox>", "<bbox>169 100 248 165</bbox>"),
        ("<300, 200>", "<169, 100>"),
        ("(300/200)", "(169/100)"),
        ("坐标（300，200）", "坐标（169，100）"),
    ],
)
def test_places_in_words_are_adapted_in_every_notation(think, converted):
    assert fitted(think) == converted


@pytest.mark.parametrize(
    "think",
    [
        *("300 to 440 horizontally", "300-440", "300–440", "It is (330).", "x300", "440 minus 300"),
        *("it is 140 wide", "140 x 130", "its width is 140, its height 130", "the middle is 370"),
        *("y-value of 331", "column 301", "edge of the chair at 331", "横坐标是301", "row 201"),
        *("y goes from 205 down to 333", "x ranges 305-412", "The left side is at 305.", "It ends near 415."),
        *(
            "The box spans from 305 to 412 horizontally.",
            "width roughly 150, height roughly 120",
            "u=310, v=220",
        ),
        *(
            "I should widen the box by 25 on each side.",
            "Shift it 40 to the right.",
            "It runs 305-412 across.",
        ),
        *("The chair begins at 305.", "It sits between 305 and 412 on the horizontal axis."),
        *("40 pixels wide and 50 pixels high", "[300.1234567, 200.1234567]", "[1, 310, 210, 430, 320]"),
    ],
)
def test_a_single_coordinate_in_words_refuses_the_record(think):
    with pytest.raises(DataError):
        fitted(think)


@pytest.mark.parametrize(
    "think",
    [
        *(
            "There are 300 books.",
            "More than 440 bottles, roughly 330 people, with 200 frames.",
            "On page 140 of the book. It costs 130.",
            "I count 140 chairs.",
            "a total of 300",
            "frames 30, 35 and 40",
            "at 10:30",
        ),
        *(
            "330 centimeters",
            "about 140 to 300 cm",
            "a 140-degree turn",
            "turn left 140 degrees",
            "300 seconds",
        ),
        *("in image 300", "$300", "300%", "The number on the bus is 300.", "300米", "about 3.5 meters", "45"),
        *("300 seconds", "at 10:30"),
        *("On the left side there are 31 chairs.", "The right side is about 150 cm from us."),
        *(
            "The left side is where 45 people wait.",
            "Bus 38 is on the right.",
            "A door of height 205 is usual.",
        ),
        *("The video starts at 31.", "The price ranges from 31 to 45.", "Room 101 is at the top end."),
        *(
            "The shelf extends to 150 cm.",
            "It ends at 12.",
            "The road runs past house 45.",
            "A is 3 x 5 cells.",
        ),
        *(
            "Widen the search by 2 rooms.",
            "the wall spans about 3.5 meters",
            "It rotates horizontally by 90°.",
        ),
        *("The table is 150 cm wide and 75 cm high.", "The scale goes up to 205.", "The picture is 40 x 50."),
    ],
)
def test_counts_and_measures_in_words_stay(think):
    assert fitted(think) == think


def test_an_answer_may_be_in_words_unless_it_is_in_pixels():
    assert fitted("So it is 300.", "300", "How long is it?") == "So it is 300."
    with pytest.raises(DataError):
        fitted("So it is 300.", "301", "How long is it?")
    with pytest.raises(DataError):
        fitted("So it is 300.", "300", "What is its x coordinate?")


def test_drawings_of_a_picture_that_stays_refuse_nothing():
    known = {}
    convert_items(BOX % 1, {1: SAME}, known)
    assert convert_prose("It starts near to 300.", known) == "It starts near to 300."


def test_a_drawing_written_as_a_list_refuses_the_record():
    with pytest.raises(DataError, match="no item says of which image"):
        fit_conversation(record(turn('[1, 300, 200, 440, 330, "c"]')), [(448, 336)] * 2, 784, SMALL)


def test_items_are_read_with_all_their_decimals():
    item = BOX.replace("300, 200, 440, 330", "300.12345678, 2e2") % 1
    assert "[150.06172839, 100]" in convert_items(item, {1: HALF}, {})
    with pytest.raises(DataError, match="no coordinates that can be read"):
        convert_items(BOX.replace("300", "1234567890") % 1, {1: HALF}, {})


def outside(text: str, spans) -> str:
    return re.sub(r"\s+", "", blanked(text, spans))


@given(WORDS, WORDS)
def test_any_text_is_converted_or_refused(question, answer):
    """What is not in a list of numbers or a stated size never changes, and nothing does at an equal size."""
    assert convert_question((question, answer), {SAME}) == (question, answer)
    try:
        found = convert_question((question, answer), {HALF})
    except DataError:
        return
    for old, new in zip((question, answer), found, strict=True):
        spans = [[span for s in series_of(plain(t)) for span in s.spans] for t in (old, new)]
        assert outside(old, spans[0]) == outside(new, spans[1])


@given(WORDS)
def test_any_words_of_a_turn_are_converted_or_refused(text):
    known = {}
    try:
        assert convert_items(text, {1: SAME}, known) == text
        assert convert_prose(text, known) == text
    except DataError:
        pass
    known = {("300", "200"): {("150", "100")}, ("300", "200", "440", "330"): {("150", "100", "220", "165")}}
    try:
        new = convert_prose(text, known)
    except DataError:
        return
    spans = [[span for s in series_of(plain(t)) for span in s.spans] for t in (text, new)]
    assert outside(text, spans[0]) == outside(new, spans[1])


@given(st.from_regex(r"-?[0-9]{1,4}(\.[0-9]{1,9})?", fullmatch=True))
def test_coordinates_stay_or_are_scaled_with_their_decimals(text):
    assert SAME.number(text, 0) == text
    decimals = len(text.partition(".")[2])
    half = HALF.number(text, 0)
    assert abs(2 * Decimal(half) - Decimal(text)) <= Decimal(10) ** -decimals
    assert len(half.partition(".")[2]) == decimals
