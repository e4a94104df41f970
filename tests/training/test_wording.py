"""One prompt in all stages: read from imported traces, saved in the workdir, named in scores."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from vilasr_jax.checkpoint import convert_from_hf, convert_to_hf, export_hf
from vilasr_jax.config import (
    BucketSection,
    DataSection,
    DrawingSection,
    ImageSection,
    JobConfig,
    from_config_dict,
    to_dict,
)
from vilasr_jax.drawing.prompts import FILE, PROMPTS, PromptSet, question_text, read_prompts
from vilasr_jax.errors import ConfigError
from vilasr_jax.job import export
from vilasr_jax.processing import encode_conversation
from vilasr_jax.tasks.importers import import_data
from vilasr_jax.tasks.stored import StoredRows
from vilasr_jax.trained_model import open_model
from vilasr_jax.training.evaluate import settings_of
from vilasr_jax.training.run import Run, open_run
from vilasr_jax.workdir import open_workdir

SYSTEM = (
    '### Guidance:\nYou look and draw.\n### Tools:\n**Object Mapper** accepts {"bbox_2d": [...]}, **Path '
    "Tracer** accepts lines.\nAn image is %d pixels wide and %d pixels high."
)
VIDEO = " These are frames from a video, numbered from 1 to %d."
LINE = "\nImage no. %d is above (width: %d, height: %d).\n"
END = "\n\nThink step by step."
CHOICE = "\nAnswer with the option's letter from the given choices directly."
NUMBER = " Please answer the question using a single word or phrase (e.g., 42 or 3.14)."
GO_ON = "Continue, {look} again:"
LAST = "Answer without a tool now."
BOX = (
    "<think> I look. </think> Action: Object Mapper\n```json\n"
    '[{"index": %d, "bbox_2d": [28, 28, 112, 84], "label": "%d"}]\n```'
)
ANSWER = "<think> I see. </think> Action: Answer\n<answer> %s </answer>"


def question(number: int) -> dict:
    """Row `number` of the RL file: choices, numbers, two views and videos in turn."""
    kind, size = number % 4, [(448, 336), (280, 448)][number % 2]
    count = {0: 1, 1: 1, 2: 2, 3: 4}[kind]
    row = {
        "question": f"{'Which Where How What'.split()[kind]} is number {number}?",
        "answer": "B" if kind != 1 else "7",
        "image_path": [f"{size[0]}.png"] * count,
        "question_type": "numerical" if kind == 1 else "multiple choice",
        "data_type": "video" if kind == 3 else "vqa",
    }
    return row if kind == 1 else {**row, "options": ["A. left", "B. right", f"C. {number}"]}


def trace(row: dict, turns: int) -> dict:
    """The recorded conversation about a question, with `turns` drawn turns, the last one answered at once."""
    width = int(row["image_path"][0].removesuffix(".png"))
    size, count = {448: (448, 336), 280: (280, 448)}[width], len(row["image_path"])
    options = "\nChoices:\n" + "\n".join(row["options"]) + CHOICE if "options" in row else NUMBER
    system = SYSTEM % size + (VIDEO % count if row["data_type"] == "video" else "")
    given = "".join("<image>" + LINE % (index, *size) for index in range(1, count + 1))
    said = [
        {"role": "system", "content": system},
        {"role": "user", "content": f"{given}### Question:\n{row['question']}{options}{END}"},
    ]
    for turn in range(turns):
        index = count + turn
        said += [
            {"role": "assistant", "content": BOX % (index, turn)},
            {
                "role": "user",
                "content": "<image>" + LINE % (index + 1, *size) + (LAST if turn == 3 else GO_ON),
            },
        ]
    said.append({"role": "assistant", "content": ANSWER % row["answer"]})
    return {"conversations": said, "images": row["image_path"] + row["image_path"][:1] * turns}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Imported traces and questions about the same rows, and a benchmark with them."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("rows")
    for size in ((448, 336), (280, 448)):
        Image.new("RGB", size, "white").save(source / f"{size[0]}.png")
    rows = [question(number) for number in range(16)]
    (source / "cold_start").mkdir()
    traces = [trace(row, 1 + number // 4) for number, row in enumerate(rows)]
    (source / "cold_start" / "vqa.json").write_text(json.dumps(traces))
    (source / "rl").mkdir()
    (source / "rl" / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (source / "maze.json").write_text(json.dumps([{**r, "problem_type": r["question_type"]} for r in rows]))
    for name in ("cold_start", "rl", "maze"):
        import_data(name, source, out / name)
    return out


def run_of(workdir: Path, data: Path, prompt: str = "published", pixels: int = 1280 * 784) -> Run:
    job = JobConfig(
        tasks=(),
        data=DataSection(traces=(str(data / "cold_start"),), questions=(str(data / "rl"),)),
        drawing=DrawingSection(prompt=prompt, max_turns=5),
        image=ImageSection(max_pixels=pixels),
        buckets=BucketSection(tokens=(4096,), images=(16,), patches=(2048,)),
    )
    run = open_run(job, workdir, tiny.mesh())
    run.model.__dict__["tokenizer"] = tiny.tokenizer()
    return run


def test_import_keeps_the_prompt_of_traces(data):
    index = json.loads((data / "cold_start" / "index.json").read_text())
    assert index["prompt"] == {"rows": 16, "agree": 16, "own": ["error"], "unlike": []}
    assert not (data / "rl" / FILE).exists()
    prompts = read_prompts(data / "cold_start")
    assert prompts.question == "### Question:\n{question}" and prompts.closing == END
    assert (
        prompts.index
        == prompts.drawn_index
        == "\nImage no. {index} is above (width: {width}, height: {height}).\n"
    )
    assert (prompts.drawn, prompts.final, prompts.name) == (GO_ON, LAST, "imported")
    assert prompts.choices == "\nChoices:\n{options}" and prompts.suffixes["numerical"] == NUMBER


@pytest.mark.parametrize("pixels", [1280 * 784, 100 * 784], ids=["as stored", "resized"])
def test_all_stages_use_one_wording_byte_for_byte(tmp_path, data, pixels):
    run = run_of(tmp_path, data, pixels=pixels)
    traces, questions = StoredRows([data / "cold_start"]), StoredRows([data / "rl"])
    benchmark = StoredRows([data / "maze"])
    limits = (run.job.image.min_pixels, pixels)
    for number, stored in enumerate(traces):
        recorded = stored.conversation(*limits)
        for rows in (questions, benchmark):
            row = rows[number].row(*limits)
            row = dataclasses.replace(row, data_type=questions[number].data_type)
            session = run.questions.requests([row])[0].session()
            messages = session.messages
            for said in [m for m in recorded if m["role"] == "assistant"]:
                messages.append(said)
                reply = session.step(said["content"][0]["text"])
                messages += [reply.message] if reply.message else []
            assert session.stop_reason == "answer"
            live, sft = (encode_conversation(tiny.tokenizer(), m) for m in (messages, recorded))
            assert tiny.tokenizer().decode(live.ids) == tiny.tokenizer().decode(sft.ids)
            assert np.array_equal(live.ids, sft.ids) and np.array_equal(live.loss_mask, sft.loss_mask)


def test_a_run_keeps_its_prompt_and_each_score_names_it(tmp_path, data):
    run = run_of(tmp_path, data)
    open_workdir(run.job, tmp_path)
    words = read_prompts(data / "cold_start")
    assert read_prompts(tmp_path) == words
    said = settings_of(run.job, run.model.prompts)["prompt"]
    assert said == {"variant": "imported", "sha256": words.sha256, "source": words.source}
    # Later stages need no traces, nor the folder that the words came from.
    job = dataclasses.replace(run.job, data=DataSection())
    assert open_run(job, tmp_path, tiny.mesh()).model.settings.prompt == words
    moved = dataclasses.replace(run.job, drawing=dataclasses.replace(job.drawing, prompt="gone/traces"))
    open_workdir(moved, tmp_path)
    ours = dataclasses.replace(run.job, drawing=dataclasses.replace(job.drawing, prompt="vilasr_jax"))
    with pytest.raises(ConfigError, match="belongs to another config"):
        open_workdir(ours, tmp_path)
    other = run_of(tmp_path / "other", data, "short")
    assert settings_of(other.job, other.model.prompts)["prompt"]["variant"] == "short"


def test_a_prompt_file_or_folder_can_be_named(tmp_path, data):
    words = read_prompts(data / "cold_start")
    for path in (data / "cold_start", data / "cold_start" / FILE):
        assert run_of(tmp_path, data, str(path)).model.settings.prompt == words
    (tmp_path / "mine.json").write_text(json.dumps({"system": "Draw. {images}", "name": "mine"}))
    mine = run_of(tmp_path, data, str(tmp_path / "mine.json")).model.settings.prompt
    assert (mine.system, mine.name, mine.drawn) == ("Draw. {images}", "mine", PROMPTS["vilasr_jax"].drawn)
    for text, part in [
        ("{", "isn't JSON"),
        ("[]", "a key 'system' is needed"),
        ('{"system": "x", "sytem": ""}', "no such key 'sytem'"),
        ('{"system": "{widht}"}', "system isn't a template"),
        ('{"system": "{"}', "system isn't a template"),
        ('{"system": 3}', "system is 3"),
    ]:
        (tmp_path / "mine.json").write_text(text)
        with pytest.raises(ConfigError, match=r"mine\.json: ") as error:
            run_of(tmp_path, data, str(tmp_path / "mine.json")).model.settings  # noqa: B018
        assert part in str(error.value)


def test_published_without_traces_says_how_to_give_them(tmp_path):
    for prompt, part in (("published", r"vilasr data import cold_start"), ("long", "there is no such file")):
        job = JobConfig(drawing=DrawingSection(prompt=prompt))
        with pytest.raises(ConfigError, match=part):
            open_run(job, tmp_path, tiny.mesh()).model.settings  # noqa: B018


def test_an_older_run_called_our_words_published(tmp_path):
    old = {**to_dict(JobConfig()), "drawing": {**to_dict(DrawingSection()), "prompt": "published"}}
    (tmp_path / "config.json").write_text(json.dumps(old))
    for prompt in ("published", "vilasr_jax"):
        job = JobConfig(drawing=DrawingSection(prompt=prompt))
        open_workdir(job, tmp_path)
        words = open_run(job, tmp_path, tiny.mesh()).model.settings.prompt
        assert words == PROMPTS["vilasr_jax"]
    assert from_config_dict(old).drawing.prompt == "published"
    with pytest.raises(ConfigError, match="belongs to another config"):
        open_workdir(JobConfig(drawing=DrawingSection(prompt="short")), tmp_path)


def test_traces_of_another_wording_are_named(tmp_path, data, caplog):
    with caplog.at_level(logging.WARNING):
        run_of(tmp_path / "one", data, "published").examples.recorded("traces")
        assert "was recorded with another prompt" not in caplog.text
        for prompt in ("short", "vilasr_jax"):
            caplog.clear()
            run_of(tmp_path / "two", data, prompt).examples.recorded("traces")
            assert "cold_start was recorded with another prompt (imported)" in caplog.text


def test_parts_that_some_traces_do_not_show_come_from_others(tmp_path, data, caplog):
    source = tmp_path / "source"
    source.mkdir()
    for size in ((448, 336), (280, 448)):
        Image.new("RGB", size, "white").save(source / f"{size[0]}.png")
    few = [trace(question(number), 1) for number in (0, 4, 8, 5)]
    (source / "rrs.json").write_text(json.dumps(few))
    import_data("rrs", source, tmp_path / "rrs")
    assert "final" in json.loads((tmp_path / "rrs" / "index.json").read_text())["prompt"]["own"]
    both = DataSection(traces=(str(tmp_path / "rrs"),), reflect_traces=(str(data / "cold_start"),))
    job = dataclasses.replace(run_of(tmp_path, data).job, data=both)
    assert open_run(job, tmp_path, tiny.mesh()).model.settings.prompt == read_prompts(data / "cold_start")
    for row in few:
        row["conversations"][0]["content"] += " Be brief."
    (source / "rrs.json").write_text(json.dumps(few))
    import_data("rrs", source, tmp_path / "other")
    job = dataclasses.replace(job, data=dataclasses.replace(both, traces=(str(tmp_path / "other"),)))
    with pytest.raises(ConfigError, match="have different prompts"):
        open_run(job, tmp_path, tiny.mesh()).model.settings  # noqa: B018


def test_conversations_of_no_one_wording_have_no_prompt(tmp_path):
    Image.new("RGB", (448, 336), "white").save(tmp_path / "448.png")
    rows = [trace(question(4 * number), 1) for number in range(6)]
    for number, row in enumerate(rows):
        row["conversations"][0]["content"] += f" Rule {number}."
    (tmp_path / "vqa.json").write_text(json.dumps(rows))
    index = import_data("cold_start", tmp_path, tmp_path / "out")
    assert index["prompt"]["agree"] == 1 and len(index["prompt"]["unlike"]) == 5
    assert not (tmp_path / "out" / FILE).exists()


def test_words_that_list_their_tools_refuse_others(tmp_path, data):
    job = run_of(tmp_path, data).job
    job = dataclasses.replace(job, drawing=dataclasses.replace(job.drawing, tools=("object_mapper", "erase")))
    run = open_run(job, tmp_path, tiny.mesh())
    with pytest.raises(ConfigError, match="describes object_mapper, path_tracer and not erase"):
        run.questions.requests([StoredRows([data / "rl"])[0].row(784, 784_000)])[0].session()


def test_a_hugging_face_folder_brings_its_prompt(tmp_path, data, caplog):
    export_hf(tiny.params(), tiny.config(), tmp_path / "hf", tokenizer=tiny.tokenizer())
    assert open_model(tmp_path / "hf").prompts == PROMPTS["vilasr_jax"]
    assert "holds no prompt.json: questions have our own words" in caplog.text
    shutil.copy(data / "cold_start" / FILE, tmp_path / "hf")
    assert open_model(tmp_path / "hf").prompts == read_prompts(data / "cold_start")


def test_a_run_with_imported_words_has_them_exported(tmp_path, data):
    job = dataclasses.replace(run_of(tmp_path, data).job, tasks=("maze",))
    open_workdir(job, tmp_path)
    run = open_run(job, tmp_path, tiny.mesh())
    stage = run.stages["cold_start"]
    stage.save(stage.steps, {"params": run.model.initial_params()})
    stage.close()
    export(run)
    convert_from_hf(tmp_path / "hf", tmp_path / "orbax")
    convert_to_hf(tmp_path / "orbax", tmp_path / "again")
    for folder in (tmp_path, tmp_path / "hf", tmp_path / "again"):
        assert open_model(folder).settings.prompt == read_prompts(data / "cold_start")


def prompt_of(folder: Path, files: dict[str, list[str]]) -> tuple[dict, PromptSet | None]:
    """The note and prompt of imported conversations; each file has the words after the picture's size."""
    folder.mkdir()
    Image.new("RGB", (448, 336), "white").save(folder / "448.png")
    for name, texts in files.items():
        rows = [trace(question(4 * number), 1) for number in range(len(texts))]
        for row, text in zip(rows, texts, strict=True):
            row["conversations"][1]["content"] = "<image>" + LINE % (1, 448, 336) + text
        (folder / f"{name}.json").write_text(json.dumps(rows))
    index = import_data("cold_start", folder, folder / "out")
    kept = (folder / "out" / FILE).exists()
    return index["prompt"], read_prompts(folder / "out") if kept else None


def test_options_and_suffixes_must_come_out_of_the_prompt(tmp_path):
    lines = [f"Question: Which of {n}?\nOptions:\nA. chair\nB. table{CHOICE}" for n in range(6)]
    inline = [f"Question: Which of {n}? (A) chair (B) table{CHOICE}" for n in range(3)]
    note, prompts = prompt_of(tmp_path / "mixed", {"vqa": lines + inline})
    assert (note["rows"], note["agree"], len(note["unlike"]), prompts) == (9, 6, 3, None)
    note, prompts = prompt_of(tmp_path / "inline", {"vqa": inline})
    assert note["agree"] == 3 and (prompts.choices, prompts.joint) == (" {options}", " ")
    text = question_text(prompts, "Which of 2?", "multiple choice", ["(A) chair", "(B) table"])
    assert text == inline[2]
    other = [text.replace(CHOICE, " " + CHOICE.strip()) for text in lines[:2]]
    assert prompt_of(tmp_path / "suffix", {"vqa": lines[2:] + other})[0]["agree"] == 4


def test_words_in_all_questions_of_a_file_stay_theirs(tmp_path):
    mazes = [
        f"This is a maze; green is the start.\nAfter {n} moves, where?\nName the cell." for n in range(10)
    ]
    note, prompts = prompt_of(tmp_path / "one", {"maze": mazes})
    assert note["agree"] == 10 and (prompts.question, prompts.closing) == ("{question}", "")
    block = [f"Look well.\nWhat is {n}?\nThink." for n in range(4)]
    note, prompts = prompt_of(tmp_path / "two", {"maze": block, "vqa": block})
    assert note["agree"] == 8
    assert (prompts.question, prompts.closing) == ("Look well.\n{question}", "\nThink.")


def test_options_of_one_letter_are_joined_as_imported(data):
    theirs = read_prompts(data / "cold_start")
    assert "A\nB" in question_text(theirs, "Which?", "multiple choice", ["A", "B"])
    assert "A, B" in question_text(PROMPTS["vilasr_jax"], "Which?", "multiple choice", ["A", "B"])
