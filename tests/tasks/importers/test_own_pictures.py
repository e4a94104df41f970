"""A user's own pictures in every form: rows, drawings, refused rows, the check and its page."""

import base64
import csv
import html
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from vilasr_jax import cli
from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.errors import ConfigError
from vilasr_jax.models import by_model_type
from vilasr_jax.tasks.importers import Canvas, import_data, read_pictures
from vilasr_jax.tasks.show import stored_trace
from vilasr_jax.tasks.stored import StoredRow, StoredRows

LIMITS = (28 * 28, 112 * 112)
CANVAS = Canvas(DrawingSettings(image_unit=28), *LIMITS)
HALL = {
    "image": "images/hall.png",
    "question": "What is left of the door?",
    "answer": "a lamp",
    "options": ["a chair", "a lamp"],
    "boxes": [{"box": [224, 112, 336, 224], "label": "door"}, {"box": [0, 0, 112, 112], "label": "door"}],
    "lines": [{"line": [224, 168, 56, 56], "label": "1"}],
}
QUESTION = {"image": "images/hall.png", "question": "How many doors?"}
CONFIG = "--config=pictures_tiny"


@pytest.fixture
def photos(tmp_path):
    """A folder with one picture, of 448 x 224 pixels, which the model sees at a quarter of its sides."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (448, 224), "white").save(tmp_path / "images" / "hall.png")
    return tmp_path


def rows_of(folder, *items, name="train.jsonl"):
    (folder / name).write_text("".join(f"{json.dumps(item)}\n" for item in items))
    return list(read_pictures(folder / name, CANVAS))


def calls_of(row):
    """The JSON items of a stored conversation's turns."""
    said = "".join(m["content"] for m in row.messages if m["role"] == "assistant")
    return [
        item for block in re.findall(r"```json\n(.*?)\n```", said, re.DOTALL) for item in json.loads(block)
    ]


def test_boxes_and_lines_are_drawn_where_they_are(photos):
    (row,) = rows_of(photos, HALL)
    assert (row.answer, row.options, row.question_type) == (
        "B",
        ("A. a chair", "B. a lamp"),
        "multiple choice",
    )
    first, second, line = calls_of(row)
    trace = stored_trace(row, *LIMITS, CANVAS.family)
    width, height = trace.row.images[0].size
    scale = np.array([width / 448, height / 224] * 2)
    assert first["bbox_2d"] == np.rint(scale * [224, 112, 336, 224]).tolist() and second["label"] == "door 2"
    assert line["start_point_2d"] + line["end_point_2d"] == np.rint(scale * [224, 168, 56, 56]).tolist()
    assert len(row.images) == 3 and len(trace.turns) == 3
    session = trace.row.session(CANVAS.settings)
    for text in trace.turns:
        session.step(text)
    assert session.answer == "B"
    drawn = [part["image"] for m in row.conversation(*LIMITS) for part in m["content"] if "image" in part]
    assert [image.tobytes() for image in drawn] == [image.tobytes() for image in session.images]
    changed = np.argwhere((np.asarray(drawn[1]) != 255).any(-1))
    assert len(changed) and changed[:, 1].max() <= first["bbox_2d"][2] + 4


def test_a_row_without_marks_is_a_question(photos):
    (row,) = rows_of(photos, {"image": "images/hall.png", "question": "How many doors?", "answer": 2})
    assert (row.answer, row.question_type, row.messages) == ("2", "numerical", ())


def test_llava_gives_a_row_a_question(photos):
    turns = [("human", "<image>\nIs there a door?"), ("gpt", "yes"), ("human", "A lamp?"), ("gpt", "no")]
    item = {"id": 1, "image": "images/hall.png", "conversations": [{"from": a, "value": b} for a, b in turns]}
    first, second = rows_of(photos, item, name="llava.json")
    assert [(row.question, row.answer) for row in (first, second)] == [
        ("Is there a door?", "yes"),
        ("A lamp?", "no"),
    ]
    assert first.id != second.id and len(second.images) == 1


@pytest.mark.parametrize("kind, box", [("real", [224, 112, 336, 224]), ("norm1", [0.5, 0.5, 0.75, 1.0])])
def test_swift_objects_are_boxes(photos, kind, box):
    messages = [
        {"role": "user", "content": "<image>Where is the <ref-object>?"},
        {"role": "assistant", "content": "on the right"},
    ]
    objects = {"ref": ["door"], "bbox": [box], "bbox_type": kind}
    item = {"messages": messages, "images": ["images/hall.png"], "objects": objects}
    (row,) = rows_of(photos, item, name="swift.jsonl")
    assert row.question == "Where is the door?" and row.answer == "on the right"
    (call,) = calls_of(row)
    (own,) = rows_of(photos, {**HALL, "options": [], "lines": [], "boxes": HALL["boxes"][:1]})
    assert call["label"] == "door" and call["bbox_2d"] == calls_of(own)[0]["bbox_2d"]


def test_a_csv_row_has_a_box(photos):
    with (photos / "train.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "question", "answer", "options", "x1", "y1", "x2", "y2", "label"])
        table.writerow(["images/hall.png", "Which, if any?", "door", "lamp|door", 224, 112, 336, 224, "door"])
        table.writerow(["images/hall.png", "[1] Which?", "door", "lamp|door", "left", 112, 336, 224, "door"])
    row, refused = read_pictures(photos, CANVAS)
    assert (row.answer, row.options, len(calls_of(row))) == ("B", ("A. lamp", "B. door"), 1)
    assert "train.csv:3: x1, y1, x2, y2 are ['left'" in refused


REFUSED = {
    "box 1 [224.0, 112.0, 500.0, 224.0] reaches out of the picture, which is 448 x 224": {
        "boxes": [[224, 112, 500, 224]]
    },
    "box 1 [336.0, 112.0, 224.0, 224.0]: x1, y1 must be the top left corner": {
        "boxes": [[336, 112, 224, 224]]
    },
    "box 1 is [1, 2]; four numbers x1, y1, x2, y2 are needed": {"boxes": [[1, 2]]},
    "line 1 is on image 2; the row has 1": {"lines": [{"line": [0, 0, 9, 9], "image": 2}]},
    "image images/none.png is missing": {"image": "images/none.png"},
    "answer 'a cat' is none of the options": {"answer": "a cat"},
    "question is missing": {"question": None},
    "unknown key 'box'; did you mean boxes?": {"box": []},
    "thoughts has 1 texts; this row has 3 turns": {"thoughts": ["so"]},
    "'</think>' can't be part of a thought": {"thoughts": ["a </think>", "b", "c"]},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_bad_row_is_named_with_its_reason(photos, reason):
    good, bad = rows_of(photos, HALL, {**HALL, **REFUSED[reason]})
    assert not isinstance(good, str) and bad.startswith(f"{photos}/train.jsonl:2: ") and reason in bad


def test_an_import_is_read_as_traces(photos, tmp_path):
    rows_of(photos, HALL, {**HALL, "answer": "a cat"})
    index = import_data("pictures", photos, tmp_path / "out", canvas=CANVAS)
    assert (index["rows"], index["broken"]) == (1, 1) and (tmp_path / "out" / "prompt.json").exists()
    assert StoredRows([tmp_path / "out"])[0].messages


def test_check_counts_and_shows_what_is_drawn(photos, capsys, tmp_path):
    rows_of(photos, HALL, {**HALL, "answer": "a <cat>"})
    page = tmp_path / "check.html"
    with pytest.raises(SystemExit) as stop:
        cli.main(["vilasr", "data", "check", str(photos), "--config=pictures_tiny", f"--out={page}"])
    out = capsys.readouterr().out
    assert stop.value.code == 0
    assert "1 rows: 1 with drawings (2 boxes, 1 lines), 0 questions without" in out
    assert "1 rows are refused:" in out and "train.jsonl:2: answer" in out
    text = page.read_text()
    assert text.count("<figure>") == 3 and "a &lt;cat&gt;" in text and "What is left of the door?" in text


def test_check_reads_test_rows_and_says_answers_in_words(photos, capsys, tmp_path):
    rows_of(photos, HALL, {**HALL, "options": ["a lamp", "a chair"]}, {"answer": "7", **QUESTION})
    rows_of(photos, HALL, {**HALL, "boxes": [[1, 2, 3]]}, {**QUESTION, "answer": "8"}, name="test.jsonl")
    found = tmp_path / "found.json"
    words = ["--config=pictures_tiny", f"--out={tmp_path / 'check.html'}", f"--json={found}"]
    with pytest.raises(SystemExit) as stop:
        cli.main(["vilasr", "data", "check", str(photos), *words])
    out = capsys.readouterr().out
    assert stop.value.code == 0
    assert "3 rows: 2 with drawings" in out and "test.jsonl: 2 rows\n" in out
    assert "test.jsonl:2: box 1 is [1, 2, 3]; four numbers" in out
    assert "the commonest answers: B 1, A 1, 7 1 (in words: a lamp 2, 7 1)" in out
    assert "sees at 196 x 84 pixels: 21 tokens each" in out
    assert json.loads(found.read_text())["test"] == {"test.jsonl": 2}


def test_a_thought_has_a_space_before_its_end(photos):
    """As in the prompt, which the model is shown; in the user's own thoughts as well."""
    rows = rows_of(photos, HALL, {**HALL, "thoughts": ["The door ", "Left.", " So. "]})
    said = [m["content"] for row in rows for m in row.messages if m["role"] == "assistant"]
    thoughts = [re.match(r"<think> (.*?)</think> Action: ", text)[1] for text in said]
    assert thoughts[:3] == ["I mark door, door 2. ", "I draw 1. ", "The drawing shows the answer. "]
    assert thoughts[3:] == ["The door ", "Left. ", "So. "]


def test_an_import_shows_its_percent(photos, capsys, tmp_path):
    rows_of(photos, HALL)
    with pytest.raises(SystemExit):
        cli.main(["vilasr", "data", "import", "pictures", *map(str, (photos, tmp_path / "rows")), CONFIG])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("import pictures: ")]
    assert re.fullmatch(r"import pictures: 100 %, elapsed 0:00:\d\d, 1 rows, 0 broken", lines[-1])


def shown_on(page) -> tuple[list[Image.Image], list[list[int]]]:
    """The pictures of a page, and the places that its turns name."""
    text = html.unescape(page.read_text())
    images = re.findall(r"data:image/png;base64,([^\"]+)", text)
    places = re.findall(r'_2d": \[([\d, ]+)\]', text)
    return [Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB") for image in images], [
        [*map(int, place.split(", "))] for place in places
    ]


@pytest.mark.parametrize("actions", ["published", "tool_call"])
def test_the_page_shows_what_another_family_sees(photos, capsys, tmp_path, actions):
    """Sides of 32 pixels and coordinates from 0 to 1000, in the check and in rows imported for a config."""
    rows_of(photos, HALL)
    how = ["--config.model.preset=qwen3vl_tiny", f"--config.drawing.actions={actions}"]
    run = [
        ["check", str(photos), f"--out={tmp_path / 'check.html'}", "--config=pictures_tiny", *how],
        ["import", "pictures", str(photos), str(tmp_path / "rows"), "--config=pictures_tiny", *how],
        ["show", str(tmp_path / "rows"), f"--out={tmp_path / 'rows.html'}", "--config=pictures_tiny", *how],
    ]
    for words in run:
        with pytest.raises(SystemExit) as stop:
            cli.main(["vilasr", "data", *words])
        assert stop.value.code == 0, capsys.readouterr().err
    for page in ("check.html", "rows.html"):
        (given, boxes, lines), places = shown_on(tmp_path / page)
        assert all(side % 32 == 0 for side in given.size)
        assert places[:2] == [[500, 500, 750, 1000], [0, 0, 250, 500]] and places[2:] == [
            [500, 750],
            [125, 250],
        ]
        assert ("<tool_call>" in (tmp_path / page).read_text().replace("&lt;", "<").replace("&gt;", ">")) == (
            actions == "tool_call"
        )
        new = (np.asarray(boxes) != np.asarray(given)).any(-1)
        rows, columns = np.nonzero(new[:, given.width // 2 - 2 :])
        assert len(rows) and columns.max() <= given.width // 4 + 6  # the right door ends at three quarters
        assert (np.asarray(lines) != np.asarray(boxes)).any()


def test_pictures_need_a_config_and_others_refuse_it(photos, capsys, tmp_path):
    rows_of(photos, HALL)
    for name, more in (("pictures", []), ("rl", ["--config=pictures_tiny"])):
        with pytest.raises(SystemExit) as stop:
            cli.main(["vilasr", "data", "import", name, str(photos), str(tmp_path / "out"), *more])
        assert stop.value.code == 2 and "--config says how pictures are drawn" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, answer, letter, stored",
    [
        (["C. elegans", "D. melanogaster"], "C. elegans", "A", ["A. C. elegans", "B. D. melanogaster"]),
        (["B. x", "A. y"], "x", None, None),
        (["B. x", "A. y"], "B. x", "A", ["A. B. x", "B. A. y"]),
        (["(A) a lamp", "(B) a door"], "a door", "B", ["(A) a lamp", "(B) a door"]),
        (["A. lamp", "B. door"], "b", "B", ["A. lamp", "B. door"]),
        (["B. x", "A. y"], "B", None, None),
        (["C. elegans", "E. coli", "a yeast"], "C", None, None),
    ],
)
def test_options_that_look_lettered_have_the_right_answer(photos, options, answer, letter, stored):
    item = {"image": "images/hall.png", "question": "Which?", "options": options, "answer": answer}
    (row,) = rows_of(photos, item)
    if letter is None:
        assert f"answer {answer!r} is" in row
        return
    assert (row.answer, [*row.options]) == (letter, stored)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_places_in_thoughts_are_those_of_the_drawing(photos, family):
    family = by_model_type(family)
    settings = DrawingSettings(image_unit=family.images.factor, coordinates=family.coordinates)
    canvas = Canvas(settings, *LIMITS, family)
    thoughts = ["The door is at [224, 112, 336, 224], from (224, 112) on.", "It is left."]
    item = {**HALL, "lines": [], "boxes": HALL["boxes"][:1], "thoughts": thoughts}
    (photos / "train.jsonl").write_text(json.dumps(item))
    (row,) = read_pictures(photos / "train.jsonl", canvas)
    (call,) = calls_of(row)
    assert call["bbox_2d"] != [224, 112, 336, 224]
    said = next(m["content"] for m in row.messages if m["role"] == "assistant")
    x, y = call["bbox_2d"][:2]
    assert f"The door is at {call['bbox_2d']}, from ({x}, {y}) on." in said


def test_relative_coordinates_are_those_of_the_photo(photos):
    """They were rounded to pixels of the resized picture first, up to 8 units away."""
    family = by_model_type("qwen3_vl")
    settings = DrawingSettings(image_unit=32, coordinates=1000)
    Image.new("RGB", (640, 480), "white").save(photos / "images" / "hall.png")
    boxes = [
        {"box": box, "label": label}
        for label, box in {"a": [106, 1, 333, 479], "b": [0, 0, 639, 478]}.items()
    ]
    thoughts = ["From (106, 1) on.", "b is at [0, 0, 639, 478]."]
    (photos / "train.jsonl").write_text(
        json.dumps({**HALL, "lines": [], "boxes": boxes, "thoughts": thoughts})
    )
    (row,) = read_pictures(photos / "train.jsonl", Canvas(settings, 1024, 160 * 128, family))
    assert [call["bbox_2d"] for call in calls_of(row)] == [[166, 2, 520, 998], [0, 0, 998, 996]]
    said = "".join(m["content"] for m in row.messages if m["role"] == "assistant")
    assert "From (166, 2) on." in said and "b is at [0, 0, 998, 996]." in said


def test_a_video_has_the_times_of_its_frames(photos):
    """Rows have them, a model that states times reads them, and fewer frames have their own."""
    item = {
        "image": ["images/hall.png"] * 3,
        "question": "What moves?",
        "answer": "a lamp",
        "data_type": "video",
    }
    (row,) = rows_of(photos, {**item, "seconds": [0, 0.5, 2]})
    row = StoredRow.from_bytes(row.to_bytes())
    how = DrawingSettings(timestamp=by_model_type("qwen3_vl").timestamp)
    assert by_model_type("qwen2_5_vl").timestamp == ""
    for frames, times in ((0, ["0.0", "0.5", "2.0"]), (2, ["0.0", "2.0"])):
        (user,) = row.row(*LIMITS, frames).session(how).messages[1:]
        said = "".join(part.get("text", "<image>") for part in user["content"])
        assert re.findall(r"<([\d.]+) seconds><image>", said) == times
    for wrong, why in (
        ({"seconds": [0, 1]}, "the row has 3 frames"),
        ({"seconds": [0, 2, 1]}, "each later than the one before"),
        ({"seconds": [0, 1, "2"]}, "a list of times is needed"),
        ({"seconds": [0, 1, 2], "data_type": "vqa"}, '"data_type": "video"'),
    ):
        (refused,) = rows_of(photos, {**item, **wrong})
        assert why in refused


def test_a_video_with_boxes_is_drawn_with_its_times(photos):
    family = by_model_type("qwen3_vl")
    settings = DrawingSettings(image_unit=32, coordinates=1000, timestamp=family.timestamp)
    box = {"box": [0, 0, 224, 224], "label": "door", "image": 2}
    item = {"image": ["images/hall.png"] * 2, "question": "What moves?", "answer": "a", "boxes": [box]}
    item |= {"data_type": "video", "seconds": [1, 1.5]}
    (photos / "train.jsonl").write_text(json.dumps(item))
    (row,) = read_pictures(photos / "train.jsonl", Canvas(settings, *LIMITS, family))
    (said, *_) = [m["content"] for m in row.conversation(*LIMITS, family=family) if m["role"] == "user"]
    texts = "".join(part.get("text", "<image>") for part in said)
    assert re.findall(r"<([\d.]+) seconds><image>", texts) == ["1.0", "1.5"]


@pytest.mark.parametrize(
    "thought", ["The lamp is at [30, 40].", "It is 200 pixels wide.", "It ends at x=336."]
)
def test_other_places_in_thoughts_of_a_resized_photo_are_refused(photos, thought):
    item = {**HALL, "lines": [], "boxes": HALL["boxes"][:1], "thoughts": [thought, "It is left."]}
    (row,) = rows_of(photos, item)
    assert "train.jsonl:1: thoughts: " in row


def test_an_import_notices_every_change(photos, tmp_path):
    """A correction that keeps the length, and another picture of the same name."""
    rows_of(photos, HALL)
    index = import_data("pictures", photos, tmp_path / "out", canvas=CANVAS)
    assert import_data("pictures", photos, tmp_path / "out", canvas=CANVAS) == index
    Image.new("RGB", (448, 224), "black").save(photos / "images" / "hall.png")
    with pytest.raises(ConfigError, match=r"pictures of .* have changed since; give a new folder"):
        import_data("pictures", photos, tmp_path / "out", canvas=CANVAS)
    import_data("pictures", photos, tmp_path / "second", canvas=CANVAS)
    rows_of(photos, {**HALL, "boxes": [{**HALL["boxes"][0], "box": [224, 112, 337, 224]}, HALL["boxes"][1]]})
    with pytest.raises(ConfigError, match=r"a file of it .* has changed; give a new folder"):
        import_data("pictures", photos, tmp_path / "second", canvas=CANVAS)


def test_an_import_of_an_earlier_version_is_kept(photos, tmp_path):
    """It has noted no digests, and a run that uses it has noted the digest of its index."""
    rows_of(photos, HALL)
    import_data("pictures", photos, tmp_path / "out", canvas=CANVAS)
    for name, key in (("import", "digests"), ("index", "digests"), ("rows-00000", "pictures")):
        path = tmp_path / "out" / f"{name}.json"
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}))
    before = (tmp_path / "out" / "index.json").read_bytes()
    assert import_data("pictures", photos, tmp_path / "out", canvas=CANVAS)["rows"] == 1
    assert (tmp_path / "out" / "index.json").read_bytes() == before


def test_pictures_are_those_of_the_folder(photos):
    """One of the same path is in the folder above it, and one further up is named with dots."""
    folder = photos / "first"
    (folder / "images").mkdir(parents=True)
    (missing,) = rows_of(folder, HALL)
    assert "image images/hall.png is missing" in missing
    Image.new("RGB", (448, 224), "white").save(folder / "images" / "hall.png")
    (outside,) = rows_of(folder, {**HALL, "image": "../images/hall.png"})
    assert "image ../images/hall.png is outside of the folder" in outside


@pytest.mark.parametrize("name", ["train.csv", "train.jsonl", "train.json"])
def test_texts_of_other_encodings_are_refused(photos, name):
    """As Excel saves CSV by default."""
    items = [{"image": "images/hall.png", "question": "What is it?", "answer": a} for a in ("café", "tea")]
    text = {
        "train.csv": "image,question,answer\n" + "".join(",".join(item.values()) + "\n" for item in items),
        "train.jsonl": "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items),
        "train.json": json.dumps(items, ensure_ascii=False),
    }[name]
    (photos / name).write_text(text, encoding="cp1252")
    refused, good = read_pictures(photos / name, CANVAS)
    assert "isn't UTF-8; save the file as UTF-8" in refused and good.answer == "tea"
    (photos / name).write_text(text, encoding="utf-8")
    assert [row.answer for row in read_pictures(photos / name, CANVAS)] == ["café", "tea"]


def test_fractions_of_a_picture_are_in_no_text(photos):
    """Drawings are in pixels: a text with fractions would teach a second unit."""
    messages = [
        {"role": "user", "content": "<image>Where is the <ref-object>?"},
        {"role": "assistant", "content": "<bbox>"},
    ]
    objects = {"ref": ["door"], "bbox": [[0.5, 0.5, 0.75, 1.0]], "bbox_type": "norm1"}
    item = {"messages": messages, "images": ["images/hall.png"], "objects": objects}
    (refused,) = rows_of(photos, item, name="swift.jsonl")
    assert "norm1 gives fractions; leave it out of the text" in refused
