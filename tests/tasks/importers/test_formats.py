"""Published data in every layout: rows, prompts and token ids."""

import json

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from tests.tasks.importers.published import PIXELS, folder_of
from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.processing import encode_conversation, image_grid
from vilasr_jax.tasks.importers import FORMATS, import_data
from vilasr_jax.tasks.rows import VIDEO_TYPES
from vilasr_jax.tasks.stored import StoredRows

CHOICE = "\nAnswer with the option's letter from the given choices directly."


NUMBER = "\nPlease answer the question using a single word or phrase (e.g., 42 or 3.14)."


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """Rows of each format."""
    out = tmp_path_factory.mktemp("imported")
    for name in FORMATS:
        import_data(name, folder_of(name), out / name)
    return {name: list(StoredRows([out / name])) for name in FORMATS}


# id, answer, type, options, data_type, sizes of the given images, meta without the paths
EXPECTED = {
    "cold_start": [
        ("maze-0", "B", "multiple choice", 0, "maze", [(84, 56)], {}),
        ("vqa-0", "yes", "free-form", 0, "vqa", [(84, 56)], {}),
        ("vqa-1", "1", "numerical", 0, "vqa", [(84, 56)], {}),
    ],
    "rrs": [("SR_91k-0", "top left", "free-form", 0, "SR_91k", [(84, 56)], {})],
    "rl": [
        ("vilasr_rl_data-0", "A", "multiple choice", 2, "spatial_r1", [(56, 56)], {}),
        ("vilasr_rl_data-1", "2.5", "regression", 0, "video", [(56, 56), (56, 84)], {}),
        ("vilasr_rl_data-2", "C", "multiple choice", 4, "maze", [(56, 84)], {"grid_size": 5}),
    ],
    "maze": [
        ("maze-0", "B", "multiple choice", 2, "maze", [(84, 84)], {"benchmark": "maze", "grid_size": 3})
    ],
    "SpatialEval_spatialreal": [
        (
            "SpatialEval_spatialreal-0",
            "A",
            "multiple choice",
            2,
            "vqa",
            [(112, 84)],
            {"benchmark": "SpatialEval_spatialreal"},
        )
    ],
    "vsi_bench": [
        (
            "vsi_bench-0",
            "4",
            "regression",
            0,
            "video",
            [(28, 28)] * 16,
            {"benchmark": "vsi_bench", "original_question_type": "object_counting"},
        ),
        (
            "vsi_bench-1",
            "B",
            "multiple choice",
            2,
            "video",
            [(28, 28)] * 16,
            {"benchmark": "vsi_bench", "original_question_type": "object_rel_direction_easy"},
        ),
    ],
    "spar_bench": [
        (
            "spar_bench-0",
            "1.4",
            "regression",
            0,
            "single_view",
            [(56, 56)],
            {"benchmark": "spar_bench", "original_question_type": "depth_prediction_oc"},
        ),
        (
            "spar_bench-1",
            "A",
            "multiple choice",
            2,
            "multi_view",
            [(56, 56), (84, 56)],
            {"benchmark": "spar_bench", "original_question_type": "position_matching"},
        ),
        (
            "spar_bench-2",
            "move_right:0.3,rotate_left:20",
            "vci",
            0,
            "multi_view",
            [(56, 56), (84, 56)],
            {"benchmark": "spar_bench", "original_question_type": "view_change_infer"},
        ),
    ],
    "mmsi_bench": [
        (
            "mmsi_bench-0",
            "C",
            "multiple choice",
            3,
            "multi_view",
            [(56, 56)] * 2,
            {"benchmark": "mmsi_bench", "original_question_type": "Motion (Cam.)"},
        )
    ],
}


@pytest.mark.parametrize("name", FORMATS)
def test_rows(imported, name):
    found = []
    for stored in imported[name]:
        row = stored.row(*PIXELS)
        meta = {key: value for key, value in row.meta.items() if key != "image_path"}
        sizes = [image.size for image in row.images]
        found.append((row.id, row.answer, row.question_type, len(row.options), row.data_type, sizes, meta))
    assert found == EXPECTED[name]


# The full user text of a question's prompt, pictures as #.
PROMPTS = {
    ("maze", 0): "#The index of the given image is 1 (width: 84, height: 84).\n"
    "Follow: right, down. Which letter?\nOptions:\nA. (0, 1)\nB. (1, 1)" + CHOICE,
    ("SpatialEval_spatialreal", 0): "#The index of the given image is 1 (width: 112, height: 84).\n"
    "What is left of the door?\nOptions:\nA. a plant\nB. a lamp" + CHOICE,
    ("vsi_bench", 0): "".join(
        f"#The index of the given image is {k} (width: 28, height: 28).\n" for k in range(1, 17)
    )
    + "How many chairs are in this room?"
    + NUMBER,
    ("spar_bench", 0): "#The index of the given image is 1 (width: 56, height: 56).\n"
    "How far is the red point?" + NUMBER,
    ("spar_bench", 1): "#The index of the given image is 1 (width: 56, height: 56).\n"
    "#The index of the given image is 2 (width: 84, height: 56).\n"
    "Which box in the second view is the same?\nBounding box coordinates are normalized to a 0-1000 scale, "
    "with the origin at the image's top left corner.\n"
    "Options:\nA. [1, 2, 300, 400]\nB. [5, 6, 700, 800]" + CHOICE,
    ("spar_bench", 2): "#The index of the given image is 1 (width: 56, height: 56).\n"
    "#The index of the given image is 2 (width: 84, height: 56).\nHow did the camera move?",
    ("mmsi_bench", 0): "#The index of the given image is 1 (width: 56, height: 56).\n"
    "#The index of the given image is 2 (width: 56, height: 56).\n"
    "In which direction did the camera turn?\nOptions:\nA. left\nB. right\nC. up" + CHOICE,
    ("rl", 0): "#The index of the given image is 1 (width: 56, height: 56).\n"
    "Which way is the square from the middle?\nOptions:\nA. left\nB. right" + CHOICE,
    ("rl", 1): "#The index of the given image is 1 (width: 56, height: 56).\n"
    "#The index of the given image is 2 (width: 56, height: 84).\n"
    "How far apart are the squares in metres?" + NUMBER,
    ("rl", 2): "#The index of the given image is 1 (width: 56, height: 84).\n"
    "Where does the path end?\nOptions:\nA, B, C, D" + CHOICE,
}


def flat(messages) -> list[tuple[str, str]]:
    """(role, text) of each message, pictures as #."""
    return [
        (m["role"], "".join("#" if part["type"] == "image" else part["text"] for part in m["content"]))
        for m in messages
    ]


@pytest.mark.parametrize(("name", "number"), PROMPTS)
def test_prompts(imported, name, number):
    row = imported[name][number].row(*PIXELS)
    messages = row.session(DrawingSettings(prompt="vilasr_jax")).messages
    (_, system), (_, opening) = flat(messages)
    assert opening == PROMPTS[name, number]
    assert "Object Mapper" in system and "Path Tracer" in system
    frames = f"These are frames from a video, numbered from 1 to {len(row.images)}"
    assert (frames in system) == (row.data_type in VIDEO_TYPES)


def reference_ids(messages) -> list[int]:
    """Ids of the chat template's own text, by the tokenizers library with special tokens switched on."""
    text = ""
    for message in messages:
        text += f"<|im_start|>{message['role']}\n"
        for part in message["content"]:
            if part["type"] == "image":
                _, rows, columns = image_grid(part["image"])
                text += "<|vision_start|>" + "<|image_pad|>" * (rows * columns // 4) + "<|vision_end|>"
            else:
                text += part["text"]
        text += "<|im_end|>\n"
    backend = tiny.tokenizer()._backend.__class__.from_str(tiny.tokenizer()._backend.to_str())
    backend.encode_special_tokens = False
    return backend.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("name", FORMATS)
def test_token_ids(imported, name):
    for stored in imported[name]:
        if stored.messages:
            messages = stored.conversation(*PIXELS)
        else:
            messages = stored.row(*PIXELS).session(DrawingSettings(prompt="vilasr_jax")).messages
        encoded = encode_conversation(tiny.tokenizer(), messages)
        assert encoded.ids.tolist() == reference_ids(messages)
        said = [m["content"] for m in stored.messages if m["role"] == "assistant"]
        special = tiny.tokenizer().special
        wanted = sum(len(tiny.tokenizer().encode(text)) + 1 for text in said)
        assert encoded.loss_mask.sum() == wanted  # all assistant turns, each with its end
        assert (encoded.ids[encoded.loss_mask] == special.im_end).sum() == len(said)


def test_recorded_words_and_pictures_are_unchanged(imported):
    (stored,) = imported["rrs"]
    source = json.loads((folder_of("rrs") / "reflective_rejection_sampling/SR_91k.json").read_text())[0]
    recorded = [(m["role"], m["content"].replace("<image>", "#")) for m in source["conversations"]]
    messages = stored.conversation(*PIXELS)
    assert flat(messages) == recorded
    pictures = [p["image"] for m in messages for p in m["content"] if p["type"] == "image"]
    for picture, path in zip(pictures, source["images"], strict=True):
        file = folder_of("rrs") / "reflective_rejection_sampling" / path
        assert np.array_equal(np.asarray(picture), np.asarray(Image.open(file)))


def test_pixels_and_frames_are_the_readers_choice(imported):
    video = imported["vsi_bench"][0]
    assert len(video.row(*PIXELS, frames=4).images) == 4
    picked = video.row(*PIXELS, frames=4).images
    every = video.row(*PIXELS).images
    assert [every.index(image) for image in picked] == [0, 5, 10, 15]
    small = imported["SpatialEval_spatialreal"][0].row(28 * 28, 56 * 56)
    assert small.images[0].width * small.images[0].height <= 56 * 56


def test_imported_rows_can_be_looked_at(tmp_path):
    from vilasr_jax.config import JobConfig
    from vilasr_jax.models import default_family
    from vilasr_jax.tasks.show import show_data

    for name, pictures in (("rrs", 3), ("spar_bench", 5)):
        import_data(name, folder_of(name), tmp_path / name)
        shown = show_data(JobConfig(), tmp_path / name, 10, tmp_path / "page.html", default_family())
        page = (tmp_path / "page.html").read_text()
        assert shown == len(EXPECTED[name]) and page.count("<figure>") == pictures
        assert ("I look." in page) == (name == "rrs")  # what was recorded
