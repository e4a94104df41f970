"""Published data in every layout: rows, prompts and token ids, and what is said of rows that are broken."""

import json
import random
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests import tiny
from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.errors import ConfigError, DataError
from vilasr_jax.processing import encode_conversation, image_grid
from vilasr_jax.tasks.importers import FORMATS, import_data, items, run
from vilasr_jax.tasks.rows import VIDEO_TYPES
from vilasr_jax.tasks.stored import StoredRow, StoredRows, read_index

PUBLISHED = Path(__file__).parent / "published"
PIXELS = (28 * 28, 351_232)
CHOICE = "\nAnswer with the option's letter from the given choices directly."
NUMBER = "\nPlease answer the question using a single word or phrase (e.g., 42 or 3.14)."


def folder_of(name: str) -> Path:
    return PUBLISHED / ("ViLaSR-data" if name in ("cold_start", "rrs", "rl") else "ViLaSR-eval")


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


# The whole user text of a question's prompt, pictures as #.
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
    (_, system), (_, asked) = flat(messages)
    assert asked == PROMPTS[name, number]
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


def test_recorded_conversations_keep_their_words_and_pictures(imported):
    (stored,) = imported["rrs"]
    source = json.loads((folder_of("rrs") / "reflective_rejection_sampling/SR_91k.json").read_text())[0]
    told = [(m["role"], m["content"].replace("<image>", "#")) for m in source["conversations"]]
    messages = stored.conversation(*PIXELS)
    assert flat(messages) == told
    pictures = [p["image"] for m in messages for p in m["content"] if p["type"] == "image"]
    for picture, path in zip(pictures, source["images"], strict=True):
        file = folder_of("rrs") / "reflective_rejection_sampling" / path
        assert np.array_equal(np.asarray(picture), np.asarray(Image.open(file)))


def test_pixels_and_frames_are_the_readers_choice(imported):
    video = imported["vsi_bench"][0]
    assert len(video.row(*PIXELS, frames=4).images) == 4
    picked = video.row(*PIXELS, frames=4).images
    whole = video.row(*PIXELS).images
    assert [whole.index(image) for image in picked] == [0, 5, 10, 15]
    small = imported["SpatialEval_spatialreal"][0].row(28 * 28, 56 * 56)
    assert small.images[0].width * small.images[0].height <= 56 * 56


def test_imported_rows_can_be_looked_at(tmp_path):
    from vilasr_jax.config import JobConfig
    from vilasr_jax.tasks.show import show_data

    for name, pictures in (("rrs", 3), ("spar_bench", 5)):
        import_data(name, folder_of(name), tmp_path / name)
        shown = show_data(JobConfig(), tmp_path / name, 10, tmp_path / "page.html")
        page = (tmp_path / "page.html").read_text()
        assert shown == len(EXPECTED[name]) and page.count("<figure>") == pictures
        assert ("I look." in page) == (name == "rrs")  # what was recorded


# ------------------------------------------------------------------------------------------------------------
# broken rows
# ------------------------------------------------------------------------------------------------------------


def question(number: int, **changes) -> dict:
    row = {
        "question": f"question {number}?",
        "answer": "A",
        "image_path": ["p.png"],
        "question_type": "multiple choice",
        "options": ["A", "B"],
        "data_type": "vqa",
    }
    return {**row, **changes}


BROKEN = {
    3: ({"answer": None}, "answer is missing"),
    20: ({"image_path": ["gone/q.png"]}, "image gone/q.png is missing"),
    41: ({"question_type": "riddle"}, "question_type 'riddle' is unknown"),
    77: ({"image_path": ["torn.png"]}, "image torn.png"),
}
NO_JSON = 98


@pytest.fixture
def torn(tmp_path):
    """A folder with pictures, one of them cut off."""
    folder = tmp_path / "source"
    folder.mkdir()
    Image.new("RGB", (56, 56), "teal").save(folder / "p.png")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(folder / "torn.png")
    data = (folder / "torn.png").read_bytes()
    (folder / "torn.png").write_bytes(data[: len(data) // 2])
    return folder


@pytest.mark.parametrize("layout", ["lines", "list"])
def test_five_in_a_hundred_broken(torn, tmp_path, layout):
    texts = [json.dumps(question(n, **BROKEN.get(n, ({},))[0])) for n in range(100)]
    texts[NO_JSON] = texts[NO_JSON].replace('"data_type"', "data_type")
    if layout == "lines":
        file, text = torn / "rl.jsonl", "\n".join(texts)
        line = {n: n + 1 for n in range(100)}
    else:
        file, text = torn / "rl.json", "[\n" + ",\n".join(texts) + "\n]\n"
        line = {n: n + 2 for n in range(100)}
    file.write_text(text)
    index = import_data("rl", torn, tmp_path / "out")
    rows = list(StoredRows([tmp_path / "out"]))
    bad = {*BROKEN, NO_JSON}
    assert index["rows"] == 95 and index["broken"] == 5
    assert [row.question for row in rows] == [f"question {n}?" for n in range(100) if n not in bad]
    told = (tmp_path / "out" / run.BROKEN).read_text().splitlines()
    assert len(told) == 5
    for said, number in zip(told, sorted(bad), strict=True):
        assert said.startswith(f"{file}:{line[number]}: "), said
        assert BROKEN.get(number, (0, "is no valid JSON"))[1] in said, said


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"conversations": []}, "conversations"),
        ({"conversations": [{"role": "user", "content": "<image>?"}]}, "end with the assistant's"),
        ({"images": ["p.png", "p.png"]}, "1 <image>, images 2 paths"),
        ({"conversations": [{"role": "robot", "content": "x"}]}, "role 'robot'"),
        ({"conversations": [{"role": "user"}]}, "message 1"),
        (
            {
                "conversations": [
                    {"role": "user", "content": "?"},
                    {"role": "assistant", "content": "<image>"},
                ]
            },
            "an assistant message holds an image",
        ),
    ],
)
def test_broken_conversations(torn, tmp_path, change, part):
    good = {
        "conversations": [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "x"}],
        "images": ["p.png"],
    }
    (torn / "vqa.json").write_text(json.dumps([good, {**good, **change}]))
    assert import_data("cold_start", torn, tmp_path / "out")["broken"] == 1
    assert part in (tmp_path / "out" / run.BROKEN).read_text()


SAID = "<think> a </think> Action: Answer\n<answer> B </answer>"
ASKED = {"role": "user", "content": "<image>\nWhere?"}
DIALECTS = {
    "from and value": {
        "conversations": [{"from": "human", "value": "<image>\nWhere?"}, {"from": "gpt", "value": SAID}]
    },
    "messages": {"messages": [ASKED, {"role": "assistant", "content": SAID}]},
    "human and gpt": {"conversations": [{**ASKED, "role": "human"}, {"role": "gpt", "content": SAID}]},
    "image": {
        "conversations": [ASKED, {"role": "assistant", "content": SAID}],
        "image": "p.png",
        "images": None,
    },
    "parts": {
        "messages": [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "\nWhere?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": SAID}]},
        ]
    },
}


@pytest.mark.parametrize("name", DIALECTS)
def test_dialects_of_sharegpt_are_read_alike(torn, tmp_path, name):
    row = {"images": ["p.png"], **DIALECTS[name]}
    (torn / "vqa.json").write_text(json.dumps([{k: v for k, v in row.items() if v is not None}]))
    assert import_data("cold_start", torn, tmp_path / "out")["rows"] == 1
    (stored,) = StoredRows([tmp_path / "out"])
    assert stored.answer == "B" and len(stored.images) == 1
    assert stored.messages == (ASKED, {"role": "assistant", "content": SAID})


def test_what_a_tool_gives_back_is_a_user_message(torn, tmp_path):
    said = [
        ASKED,
        {"role": "assistant", "content": "x"},
        {"role": "observation", "content": "<image>"},
        {"role": "assistant", "content": SAID},
    ]
    row = {"conversations": said, "images": ["p.png", "p.png"], "system": "Draw."}
    (torn / "vqa.json").write_text(json.dumps([row]))
    import_data("cold_start", torn, tmp_path / "out")
    (stored,) = StoredRows([tmp_path / "out"])
    assert [message["role"] for message in stored.messages] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert stored.messages[0]["content"] == "Draw."


def test_nothing_to_import(torn, tmp_path):
    for source, part in [(tmp_path / "none", "no such"), (torn, "holds no file of format rl")]:
        with pytest.raises(DataError, match=part):
            import_data("rl", source, tmp_path / "out")
    (torn / "a.json").write_text("plain words")
    with pytest.raises(DataError, match="neither a JSON list nor JSON lines"):
        import_data("rl", torn, tmp_path / "out")
    (torn / "a.json").write_text('[{"question": "?"}]')
    with pytest.raises(DataError, match=r"none of 1 rows.*a.json:1: answer is missing|image_path"):
        import_data("rl", torn, tmp_path / "out2")
    with pytest.raises(ConfigError, match="no format 'coco'"):
        import_data("coco", torn, tmp_path / "out")
    with pytest.raises(DataError, match="vilasr data import"):
        StoredRows([tmp_path / "out2"])


def test_a_destination_that_holds_something_else(tmp_path):
    import_data("maze", folder_of("maze"), tmp_path / "out")
    with pytest.raises(ConfigError, match="another import"):
        import_data("mmsi_bench", folder_of("maze"), tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="other files"):
        import_data("maze", folder_of("maze"), tmp_path / "mine")
    with pytest.raises(ConfigError, match="local"):
        import_data("maze", folder_of("maze"), "gs://bucket/out")


@settings(deadline=None)
@given(st.text(alphabet='[{}],:"\\ab1\n ', max_size=80), st.sampled_from(["", "[", "{"]))
def test_any_file_is_read_or_refused(tmp_path_factory, text, start):
    path = epath.Path(tmp_path_factory.getbasetemp() / "any.json")
    path.write_text(start + text)
    try:
        found = list(items.read_items(path))
    except DataError:
        return
    assert all((item.value is None) != (item.error is None) and 0 <= item.at <= 1 for item in found)
    assert all(1 <= item.line <= text.count("\n") + 1 for item in found)


# ------------------------------------------------------------------------------------------------------------
# where pictures lie
# ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def noisy(tmp_path):
    """A folder whose 8 pictures are too big for one part of a split archive."""
    folder, rng = tmp_path / "noisy", np.random.default_rng(0)
    (folder / "shots").mkdir(parents=True)
    for number in range(8):
        noise = rng.integers(0, 255, (112, 112, 3), np.uint8)
        Image.fromarray(noise).save(folder / "shots" / f"{number}.png")
    rows = [question(n, image_path=[f"shots/{n}.png"]) for n in range(8)]
    (folder / "rl.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def records(folder) -> list[bytes]:
    return [row.to_bytes() for row in StoredRows([folder])]


def test_zip_whole_cut_or_split(noisy, tmp_path):
    import_data("rl", noisy, tmp_path / "plain")
    want = records(tmp_path / "plain")
    whole = tmp_path / "shots.zip"
    with zipfile.ZipFile(whole, "w") as archive:
        for path in sorted((noisy / "shots").iterdir()):
            archive.write(path, f"shots/{path.name}")
    shutil.rmtree(noisy / "shots")
    shutil.copy(whole, noisy / "part-000.zip")
    import_data("rl", noisy, tmp_path / "whole")
    assert records(tmp_path / "whole") == want
    (noisy / "part-000.zip").unlink()
    data, size = whole.read_bytes(), 100_000
    for number, at in enumerate(range(0, len(data), size), 1):
        (noisy / f"shots.zip.{number:03d}").write_bytes(data[at : at + size])
    import_data("rl", noisy, tmp_path / "cut")
    assert number > 2 and records(tmp_path / "cut") == want


@pytest.mark.skipif(not shutil.which("zip"), reason="needs the zip command")
@pytest.mark.parametrize("wide", [False, True], ids=["32 bit", "64 bit"])
def test_zip_split_by_zip(noisy, tmp_path, wide):
    import_data("rl", noisy, tmp_path / "plain")
    words = ["zip", "-q", "-r", "-s", "64k", *(["-fz"] if wide else []), "shots.zip", "shots"]
    subprocess.run(words, cwd=noisy, check=True)
    shutil.rmtree(noisy / "shots")
    assert len(list(noisy.glob("shots.z0*"))) >= 3
    import_data("rl", noisy, tmp_path / "split")
    assert records(tmp_path / "split") == records(tmp_path / "plain")


def test_a_broken_zip_is_told(noisy, tmp_path):
    (noisy / "shots.zip").write_bytes(b"PK no archive")
    with pytest.raises(DataError, match=r"shots\.zip: can't be read as a zip"):
        import_data("rl", noisy, tmp_path / "out")


def test_image_roots(noisy, tmp_path):
    import_data("rl", noisy, tmp_path / "plain")
    shutil.move(noisy / "shots", tmp_path / "elsewhere" / "shots")
    with pytest.raises(DataError, match="none of 8 rows"):
        import_data("rl", noisy, tmp_path / "lost")
    import_data("rl", noisy, tmp_path / "found", images=tmp_path / "elsewhere")
    assert records(tmp_path / "found") == records(tmp_path / "plain")
    rows = [question(n, image_path=[f"./ViLaSR-data/shots/{n}.png"]) for n in range(8)]
    (noisy / "rl.jsonl").write_text("\n".join(map(json.dumps, rows)))  # with the dataset's own name in front
    import_data("rl", noisy / "rl.jsonl", tmp_path / "named", images=tmp_path / "elsewhere")
    assert len(records(tmp_path / "named")) == 8


def test_from_a_bucket(noisy, tmp_path, monkeypatch):
    class Bucket(MemoryFileSystem):
        protocol = ("gcs", "gs")

        def __init__(self, *args, finalize_on_close=None, **kwargs):
            super().__init__(*args, **kwargs)

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(path.removeprefix("gs://"))

    bucket_in_memory = Bucket()  # epath keeps the file system that an earlier test may have asked for
    monkeypatch.setattr(backend.fsspec_backend, "_get_filesystem", lambda name: bucket_in_memory)
    import_data("rl", noisy, tmp_path / "plain")
    bucket = epath.Path("gs://bucket/data")
    with zipfile.ZipFile(noisy / "some.zip", "w") as archive:
        for number in range(4, 8):
            archive.write(noisy / "shots" / f"{number}.png", f"shots/{number}.png")
            (noisy / "shots" / f"{number}.png").unlink()
    for path in [noisy / "rl.jsonl", noisy / "some.zip", *noisy.glob("shots/*")]:
        target = bucket / str(path.relative_to(noisy))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    index = import_data("rl", "gs://bucket/data", tmp_path / "fetched")
    assert index["rows"] == 8 and records(tmp_path / "fetched") == records(tmp_path / "plain")


# ------------------------------------------------------------------------------------------------------------
# shards
# ------------------------------------------------------------------------------------------------------------


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_stopped_import_goes_on(noisy, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "SHARD", 3)
    import_data("rl", noisy, tmp_path / "whole")
    assert read_index(tmp_path / "whole")["shards"] == [f"rows-0000{n}.array_record" for n in range(3)]
    rng = random.Random(0)

    def stop(share, note):
        if rng.random() < 0.6:
            raise KeyboardInterrupt

    stops = 0
    while not (tmp_path / "broken" / "index.json").exists():
        try:
            import_data("rl", noisy, tmp_path / "broken", progress=stop)
        except KeyboardInterrupt:
            stops += 1
    assert stops and files(tmp_path / "broken") == files(tmp_path / "whole")
    assert import_data("rl", noisy, tmp_path / "whole")["rows"] == 8  # again: nothing to do


@pytest.mark.slow
def test_a_killed_import_ends_with_the_same_files(noisy, tmp_path):
    rng = random.Random(seed := random.randrange(1000))
    print(f"seed {seed}")
    answers = ["" if n % 97 == 0 else "A" for n in range(4000)]
    rows = [question(n, image_path=[f"shots/{n % 8}.png"], answer=a) for n, a in enumerate(answers)]
    (noisy / "rl.jsonl").write_text("\n".join(map(json.dumps, rows)))
    import_data("rl", noisy, tmp_path / "whole")
    words = [sys.executable, "-m", "vilasr_jax.cli", "data", "import", "rl", noisy, tmp_path / "broken"]
    kills = 0
    for _ in range(6):
        job = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        before = len(list((tmp_path / "broken").glob("*.json")))
        while job.poll() is None and len(list((tmp_path / "broken").glob("*.json"))) <= before:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        kills += job.poll() is None
        job.kill()
        job.wait()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    assert kills >= 2 and files(tmp_path / "broken") == files(tmp_path / "whole")


def test_a_broken_index_is_told(tmp_path):
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(DataError, match="no finished rows"):
        read_index(tmp_path)


@settings(deadline=None)
@given(st.text(), st.lists(st.binary(max_size=20), max_size=4), st.lists(st.text(max_size=9), max_size=3))
def test_a_stored_row_is_read_as_it_was_written(question, images, options):
    row = StoredRow(
        "1",
        question,
        "B",
        "free-form",
        tuple(options),
        tuple(images),
        "vqa",
        {"a": [1]},
        ({"role": "user", "content": question},),
    )
    if question.isprintable():
        assert StoredRow.from_bytes(row.to_bytes()) == row
