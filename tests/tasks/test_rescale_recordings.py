"""Records read at another size: coordinates and stated sizes fit the pictures, or the row is refused."""

import io

import pytest
from PIL import Image

from vilasr_jax.drawing import parse_actions
from vilasr_jax.drawing.coordinates import Scale, convert_sizes
from vilasr_jax.drawing.sizes import stated_sizes
from vilasr_jax.errors import DataError
from vilasr_jax.tasks.rescale_recordings import fit_conversation, fit_question
from vilasr_jax.tasks.stored import StoredRow

LARGE, SMALL = 1280 * 784, 64 * 784  # largest area read; 448 x 336 becomes 252 x 168 at the second
LINE = "The index of the given image is {} (width: {}, height: {}).\n"
BOX = '{"index": %d, "bbox_2d": [300, 200, 440, 330], "label": "chair"}'
PATH = '{"index": %d, "start_point_2d": [14, 14], "end_point_2d": [434, 322], "label": "1"}'


def turn(item: str, think: str = "I look.", tool: str = "Object Mapper") -> str:
    return f"<think> {think} </think> Action: {tool}\n```json\n[{item}]\n```"


def record(*turns: str, size=(448, 336), question="Where is it?", answer="there") -> list[dict]:
    said = [
        {"role": "system", "content": f"The image is {size[0]} pixels wide and {size[1]} pixels high."},
        {"role": "user", "content": "<image>" + LINE.format(1, *size) + question},
    ]
    for number, text in enumerate(turns, 2):
        said += [
            {"role": "assistant", "content": text},
            {"role": "user", "content": "<image>" + LINE.format(number, *size) + "Continue."},
        ]
    last = f"<think> I see. </think> Action: Answer\n<answer> {answer} </answer>"
    return [*said, {"role": "assistant", "content": last}]


def png(size, color="white") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, "PNG")
    return out.getvalue()


def stored(messages, *sizes) -> StoredRow:
    images = tuple(png(size) for size in sizes)
    return StoredRow("vqa-7", "?", "there", "free-form", (), images, "vqa", {}, tuple(messages))


def test_boxes_lines_and_stated_sizes_are_adapted():
    row = stored(record(turn(BOX % 1), turn(PATH % 2, tool="Path Tracer")), *[(448, 336)] * 3)
    messages = row.conversation(784, SMALL)
    sizes = [part["image"].size for m in messages for part in m["content"] if part["type"] == "image"]
    assert sizes == [(252, 168)] * 3
    texts = ["".join(part.get("text", "") for part in m["content"]) for m in messages]
    assert texts[0] == "The image is 252 pixels wide and 168 pixels high."
    assert texts[1] == LINE.format(1, 252, 168) + "Where is it?"
    assert texts[2] == turn('{"index": 1, "bbox_2d": [169, 100, 248, 165], "label": "chair"}')
    line = '{"index": 2, "start_point_2d": [8, 7], "end_point_2d": [244, 161], "label": "1"}'
    assert texts[4] == turn(line, tool="Path Tracer")
    assert texts[5] == LINE.format(3, 252, 168) + "Continue."


def test_a_record_within_the_limits_is_unchanged():
    messages = record(turn(BOX % 1, think="at (7, 7), 20 px to the left of x = 3"))
    fitted, sizes = fit_conversation(messages, [(448, 336)] * 2, 784, LARGE)
    assert fitted == messages and sizes == [(448, 336)] * 2


@pytest.mark.parametrize("size", [(1792, 1344), (224, 168), (1800, 1350)])
def test_a_picture_is_read_at_the_size_its_texts_state(size):
    messages = stored(record(turn(BOX % 1)), size, size).conversation(784, LARGE)
    assert [p["image"].size for m in messages for p in m["content"] if p["type"] == "image"] == [
        (448, 336)
    ] * 2
    assert "[300, 200, 440, 330]" in messages[2]["content"][0]["text"]


def test_images_of_two_sizes_are_converted_each_by_its_own():
    messages = record(turn(BOX % 1 + ", " + BOX.replace("chair", "lamp") % 2), size=(448, 336))
    messages[1]["content"] = (
        "<image>" + LINE.format(1, 448, 336) + "<image>" + LINE.format(2, 896, 672) + "Where?"
    )
    messages[3]["content"] = "<image>" + LINE.format(3, 448, 336) + "Go on."
    fitted, sizes = fit_conversation(messages, [(448, 336), (896, 672), (448, 336)], 784, 200_000)
    assert sizes == [(448, 336), (504, 364), (448, 336)]
    calls = parse_actions(fitted[2]["content"]).calls
    assert [(c.x1, c.y1, c.x2, c.y2) for c in calls] == [(300, 200, 440, 330), (169, 108, 248, 179)]
    assert (
        LINE.format(2, 504, 364) in fitted[1]["content"] and LINE.format(1, 448, 336) in fitted[1]["content"]
    )


def test_words_that_repeat_coordinates_are_adapted_too():
    messages = record(turn(BOX % 1, think="It lies at [300, 200, 440, 330], from (300, 200) on."))
    fitted, _ = fit_conversation(messages, [(448, 336)] * 2, 784, SMALL)
    assert "It lies at [169, 100, 248, 165], from (169, 100) on." in fitted[2]["content"]


@pytest.mark.parametrize(
    ("item", "think", "part"),
    [
        (BOX % 1, "It is near (120, 80).", "120, 80"),
        (BOX % 1, "It is 40 pixels wide.", "length in pixels"),
        (BOX % 1, "It starts at x = 300.", "length in pixels"),
        (BOX % 9, "I look.", "image 9"),
        (BOX.replace('"index": %d, ', ""), "I look.", "names no image"),
        (BOX.replace("[300, 200, 440, 330]", "[300, 200, 440]") % 1, "I look.", "no coordinates"),
        (
            BOX.replace("[300, 200, 440, 330]", "[300, 200, 301, 330]") % 1,
            "I look.",
            "nothing is left of a box",
        ),
        ("{'index': 1, 'bbox_2d': [300, 200, 440, 330]}", "I look.", "300, 200"),
    ],
)
def test_a_record_that_cannot_be_converted_is_refused_by_name(item, think, part):
    row = stored(record(turn(item, think=think)), (448, 336), (448, 336))
    row.conversation(784, LARGE)  # nothing to convert
    with pytest.raises(DataError, match="row vqa-7: ") as error:
        row.conversation(784, SMALL)
    assert part in str(error.value)


def test_a_stated_size_of_another_shape_is_refused():
    with pytest.raises(DataError, match="image 2: the text says 448 x 336, but the picture, 336 x 448"):
        fit_conversation(record(turn(BOX % 1)), [(448, 336), (336, 448)], 784, LARGE)


@pytest.mark.parametrize(
    "said",
    [
        "The image's width is 500 and its height is 500.",
        "The images are resized to 1000x1000.",
        "Resolution (HxW): 448x336.",
        "image_width=500, image_height=500",
    ],
)
@pytest.mark.parametrize("limit", [SMALL, LARGE])
def test_a_size_that_fits_no_picture_is_refused(said, limit):
    messages = record(turn(BOX % 1))
    messages[0]["content"] = said
    with pytest.raises(DataError, match="no picture has this shape"):
        fit_conversation(messages, [(448, 336)] * 2, 784, limit)


def test_a_question_in_pixels_is_adapted_to_its_picture():
    texts = ("Which box is the chair?", "A. [300, 200, 440, 330]", "B. [0, 0, 448, 336]", "A")
    found, sizes = fit_question(texts, [(448, 336)], 784, SMALL)
    assert sizes == [(252, 168)]
    assert found == (texts[0], "A. [169, 100, 248, 165]", "B. [0, 0, 252, 168]", "A")
    assert fit_question(texts, [(448, 336)], 784, LARGE) == (texts, [(448, 336)])


@pytest.mark.parametrize(
    "question",
    [
        "What is the height of the object in the image marked by the bounding box [123, 234, 345, 456]?",
        "What is the height of the chair at (123, 234) in the first image?",
        "What is the size of the tv in the image: 32 or 55?",
        "图中最高的建筑有15层,对吗?",
    ],
)
def test_a_question_about_an_unchanged_picture_is_accepted(question):
    assert fit_question((question, "1.2"), [(448, 336)], 784, LARGE) == ((question, "1.2"), [(448, 336)])


def test_grid_cells_and_normalised_boxes_stay_as_they_are():
    cells = ("Where does it end?", "A. (0, 1)", "B. (4, 3)", "A")
    assert fit_question(cells, [(448, 336)], 784, SMALL)[0] == cells
    boxes = ("Which box? Coordinates are normalized to a 0-1000 scale.", "A. [1, 2, 300, 400]", "A")
    assert fit_question(boxes, [(448, 336)] * 2, 784, SMALL)[0] == boxes


@pytest.mark.parametrize(
    ("texts", "sizes"),
    [
        (("Which box is it?", "A. [30, 20, 44, 33]", "A"), [(448, 336), (336, 448)]),
        (("Which is it?", "A. (300, 200)", "A"), [(448, 336)]),
        (("How many pixels is it wide?", "140"), [(448, 336)]),
    ],
)
def test_a_question_whose_pixels_cannot_be_placed_is_refused(texts, sizes):
    with pytest.raises(DataError):
        fit_question(texts, sizes, 784, SMALL)


def test_decimals_stay_as_many_and_halves_round_up():
    assert Scale((448, 336), (224, 168)).numbers(("3", "3", "-3", "2.50", "0.05")) == (
        "2",
        "2",
        "-1",
        "1.25",
        "0.03",
    )
    assert Scale((448, 336), (1000, 1000)).numbers(("448", "336", "224", "84")) == (
        "1000",
        "1000",
        "500",
        "250",
    )


@pytest.mark.parametrize(
    "text",
    [
        "(width: 448, height: 336)",
        "width 448 px and height 336 px",
        "Height: 336; width: 448",
        "448 pixels wide and 336 pixels high",
        "448 x 336",
        "width and height are 448, 336",
        "448px wide, 336px tall",
        "image_width=448, image_height=336",
        "(W448, H336)",
        "shape=(336, 448, 3)",
        "shape: (3, 336, 448)",
        "Resolution (HxW): 336x448.",
        "resolution: 448x336",
        "size (w, h): (448, 336)",
    ],
)
def test_stated_sizes_are_found_however_they_are_written(text):
    assert [size.frame for size in stated_sizes(text)] == [(448, 336)]
    changed = convert_sizes(text, {(448, 336): (252, 168)})
    assert changed == text.replace("448", "252").replace("336", "168")
    assert not stated_sizes("a 5 x 5 grid, width: 3, height: 4")
