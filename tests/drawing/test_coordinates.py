"""Which numbers in texts are coordinates or sizes of pictures: converted, left as they are, or refused."""

import pytest

from tests.tasks.test_rescale_recordings import BOX, LARGE, SMALL, record, turn
from vilasr_jax.drawing.coordinates import Scale, check_places, convert_items, convert_sizes
from vilasr_jax.drawing.questions import convert_question
from vilasr_jax.drawing.sizes import stated_sizes, unread_size
from vilasr_jax.errors import DataError
from vilasr_jax.tasks.rescale_recordings import fit_conversation, fit_question, frames_of

HALF = Scale((448, 336), (224, 168))
SIZES = {(448, 336): (224, 168)}


@pytest.mark.parametrize(
    "texts",
    [
        ("The maze starts at the green point (3, 2). Go down. Where does it end?", "(4, 3)"),
        ("The box is moved. Which order? A. 1, 2, 3, 4 B. 4, 3, 2, 1", "A"),
        ("Cells are (row, column). What is at this point?", "A. (2, 3)", "B. (3, 2)", "A"),
        ("3D box; positions in meters. Chair at (1.2, 3.4), table at (5.0, 2.0).", "3.8"),
        ("3D bounding box; positions in meters. Chair at (1.2, 3.4).", "3.8"),
        ("Which point (x, y) is nearer?", "A. (1.5, 2.3)", "B. (2, 4)", "A"),
        ("What is in the box [12, 20, 50, 70] percent?", "a chair"),
        ("What is here? Points are on a scale of 1000: (412, 530)", "a chair"),
        ("The camera moved [30, 40] cm to the box. Which one?", "left"),
        ("Which box?", "A. [.5, .25, .75, .9]", "B. [0, 0, 1, 1]", "A"),
        ("Was it in 2019, 2020 or later?", "2019"),
        ("Move x = 3 cells. Please answer with a word or phrase (e.g., 42 or 3.14).", "7"),
    ],
)
def test_numbers_that_are_no_pixels_are_never_rescaled(texts):
    assert convert_question(texts, {HALF}) == texts


@pytest.mark.parametrize(
    ("text", "converted"),
    [
        (
            "What is in the bounding box [120, 40, 300, 200]?",
            "What is in the bounding box [60, 20, 150, 100]?",
        ),
        ("Which box is it, [120, 40, 300, 200] or [0, 0, 20, 20]?", None),
        ("Pixel (224, 168) shows?", "Pixel (112, 84) shows?"),
        ("Rate confidence 0-1. Give the box in pixels [120, 40, 300, 200]", None),
        ("The bbox is 120, 40, 300, 200.", "The bbox is 60, 20, 150, 100."),
        ("In pixels: [10.5, .25, 100.5, 50.9]", "In pixels: [5.3, 0.13, 50.3, 25.5]"),
    ],
)
def test_coordinates_that_are_certainly_pixels_are_converted(text, converted):
    converted = converted or text.replace("[120, 40, 300, 200]", "[60, 20, 150, 100]").replace(
        "20, 20]", "10, 10]"
    )
    assert convert_question((text, "x"), {HALF}) == (converted, "x")


@pytest.mark.parametrize(
    "text",
    [
        "What is at coordinates 224, 168?",
        "What does Pixel 100, 200 of the image show?",
        "What is inside xmin=120, ymin=40, xmax=300, ymax=200?",
        "What is there from x=120 to x=300?",
        "What is at x: 120, y: 40?",
        "What is in <box>120 40 300 200</box>?",
        "What is at <point>100 200</point>?",
        "What is at (412, 530)? The scale has 1000 steps.",
        "Bounding boxes are normalised to 0-1000, or in pixels: [120, 40, 300, 200].",
        "Give a confidence 0-1 for the box [120, 40, 300, 200].",
        "What percent of the bounding box [120, 40, 300, 200] is covered?",
        "What is in the bounding box [2, 3, 20, 20]?",
        "What is in the bounding box [500, 40, 700, 200]?",
        "Which box is it, [120, 40, 300, 200] or 1, 2, 3, 4?",
        "What of the bounding box [120, 40, 300, 200] did they see at ages (30, 45)?",
        "How many pixels wide is the chair? A. 140 B. 150",
        "The polygon in pixels is [120, 40, 300, 200, 310, 220].",
    ],
)
def test_numbers_that_may_be_pixels_refuse_the_question(text):
    with pytest.raises(DataError):
        convert_question((text, "A"), {HALF})


@pytest.mark.parametrize(
    "text",
    [
        "width and height are 448 and 336",
        "W=448, H=336",
        "448px x 336px",
        "448 by 336",
        "size (448, 336)",
        "resolution: [448, 336]",
        "image width: 448, image height: 336",
        "(width, height) = (448, 336)",
        "width of 448 pixels and a height of 336 pixels",
        "336 pixels high and 448 pixels wide",
        "width of the image is 448, height of the image is 336",
        "448 pixels in width and 336 pixels in height",
        "width: 448\nheight: 336",
    ],
)
def test_a_size_is_read_and_converted_in_every_phrase(text):
    assert [size.frame for size in stated_sizes(text)] == [(448, 336)]
    assert convert_sizes(text, SIZES) == text.replace("448", "224").replace("336", "168")
    messages = record(turn(BOX % 1))
    messages[0]["content"] = "You look at a picture. Its frame: " + text
    for message in messages[1::2]:
        message["content"] = message["content"].replace(" (width: 448, height: 336)", "")
    assert frames_of(messages, [(1792, 1344)] * 2) == [(448, 336)] * 2


@pytest.mark.parametrize("said", ["Image size is 448/336.", "The image has size 448 times 336."])
def test_a_size_that_cannot_be_read_refuses_the_row(said):
    messages = record(turn(BOX % 1))
    messages[0]["content"] = said
    with pytest.raises(DataError, match="in a way that can't be read"):
        fit_conversation(messages, [(448, 336)] * 2, 784, LARGE)
    with pytest.raises(DataError, match="in a way that can't be read"):
        fit_question((said + " Where is the chair?", "left"), [(448, 336)], 784, LARGE)
    assert not stated_sizes("Its width is 120, its height 80 cm")
    desk = ("Which desk is 120 cm wide and 80 cm high, of 30 or 45?", "30")
    assert fit_question(desk, [(448, 336)], 784, SMALL)[0] == desk


def test_unstated_sizes_are_those_of_drawn_pictures():
    messages = record(turn(BOX % 1))
    messages[0]["content"] = "Look."
    for message in messages[1::2]:
        message["content"] = message["content"].replace(" (width: 448, height: 336)", "")
    assert frames_of(messages, [(1792, 1344), (448, 336)]) == [(448, 336)] * 2
    assert frames_of(messages, [(448, 336), (448, 336)]) == [(448, 336)] * 2
    with pytest.raises(DataError, match="drawn pictures have another size"):
        fit_conversation(messages, [(448, 448), (448, 336)], 784, LARGE)


@pytest.mark.parametrize(
    ("think", "converted"),
    [
        ("The centre is about 300, 200.", "The centre is about 169, 100."),
        ("It is at 300, 200, 440, 330.", "It is at 169, 100, 248, 165."),
        ("Cell (3, 3), 30, 45 chairs, red (255, 0, 0), then left 3.", None),
    ],
)
def test_bare_pairs_in_words_are_adapted_like_the_items(think, converted):
    fitted, _ = fit_conversation(record(turn(BOX % 1, think=think)), [(448, 336)] * 2, 784, SMALL)
    assert fitted[2]["content"].startswith(f"<think> {converted or think} </think>")


@pytest.mark.parametrize(
    "think",
    [
        "The centre is about 310, 120.",
        "Its top-left corner is at pixel 300.",
        "x about 300 and y near 200",
        "Its left edge is at x 300.",
        "Its left edge is at 300.",
        "left: 300",
    ],
)
def test_single_coordinates_in_words_refuse_the_record(think):
    with pytest.raises(DataError, match="the words hold"):
        fit_conversation(record(turn(BOX % 1, think=think)), [(448, 336)] * 2, 784, SMALL)


def test_sizes_that_are_no_pictures_stay_as_they_are():
    item = BOX.replace("chair", "image 448 x 336") % 1
    fitted, _ = fit_conversation(record(turn(item)), [(448, 336)] * 2, 784, SMALL)
    assert '"label": "image 448 x 336"' in fitted[2]["content"]
    for text in ("The monitor is 448 x 336. Which?", "Is it 448 x 336 mm?"):
        assert fit_question((text, "left"), [(448, 336)], 784, SMALL)[0][0] == text
    text = "The image is 448 x 336. Which?"
    assert fit_question((text, "left"), [(448, 336)], 784, SMALL)[0][0] == text.replace(
        "448 x 336", "252 x 168"
    )
    with pytest.raises(DataError, match="may be the size of a picture"):
        fit_question(("How large is it?", "448 x 336"), [(448, 336)], 784, SMALL)


def test_a_number_that_begins_with_its_point_is_refused_in_items():
    with pytest.raises(DataError, match="no coordinates that can be read"):
        convert_items(BOX.replace("300, 200", ".5, 200") % 1, {1: HALF}, {})


@pytest.mark.parametrize("said", ["\n(448 x 336)\n", " 448px x 336px. ", " Image 1: 448 by 336\n"])
def test_a_bare_size_after_a_picture_is_its_own(said):
    messages = [{"role": "user", "content": f"<image>{said}The monitor is 640 x 480. Where?"}]
    assert frames_of(messages, [(896, 672)]) == [(448, 336)]


@pytest.mark.parametrize(
    "place, says",
    [
        ("[0.3, 0.2, 0.9, 0.7]", "fractions, not pixels"),
        ("[300, 200, 440, 330]", "300 is outside the 224 x 168 image"),
        ("[-90, 20, 40, 30]", "-90 is outside"),
    ],
)
def test_coordinates_outside_their_image_are_refused(place, says):
    text = f'[{{"index": 1, "bbox_2d": {place}, "label": "a"}}]'
    with pytest.raises(DataError, match=says):
        check_places(text, [(224, 168)])
    check_places(text.replace(place, "[0, 1, 230, 168]"), [(224, 168)])
    check_places(text.replace(place, "[0.5, 0.5, 1, 1.5]"), [(224, 168)])
    check_places(text.replace('"index": 1', '"index": 9'), [(224, 168)])


@pytest.mark.parametrize("said", ["图像大小为448。", "图像宽448，高336。", "图像尺寸448×336。"])
def test_a_size_stated_in_chinese_before_a_question_refuses_it(said):
    with pytest.raises(DataError, match="in a way that can't be read"):
        fit_question((said + "这是什么？", "left"), [(448, 336)], 784, LARGE)


def test_sizes_in_chinese_are_not_passed_over():
    assert unread_size("图像宽448像素，高336像素") == "宽448像素"
    assert not unread_size("图中有几把椅子？")
