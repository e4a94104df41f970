"""Imported data in a job: questions, recorded conversations, benchmarks, and the traces a teacher writes."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from tests.tasks.importers.published import question
from vilasr_jax.config import (
    BucketSection,
    DataSection,
    DrawingSection,
    EngineSection,
    EvalSection,
    JobConfig,
    PackingSection,
    SamplingSection,
    to_dict,
)
from vilasr_jax.errors import ConfigError, DataError
from vilasr_jax.evaluation import read_results
from vilasr_jax.files import write_json
from vilasr_jax.processing import Encoded, encode_conversation
from vilasr_jax.tasks.importers import import_data
from vilasr_jax.tasks.stored import StoredRow, StoredRows, write_shard
from vilasr_jax.training import evaluate, synthesis
from vilasr_jax.training.imported_rows import Imported
from vilasr_jax.training.row_filter import SkipUnusable, read_notes
from vilasr_jax.training.run import Run, open_run
from vilasr_jax.training.trajectory_dataset import TIMING

PUBLISHED = Path(__file__).parents[1] / "tasks" / "published"


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """Folders of imported rows by format."""
    out = tmp_path_factory.mktemp("imported")
    for name in ("cold_start", "rl", "vsi_bench", "maze", "spar_bench"):
        source = "ViLaSR-data" if name in ("cold_start", "rl") else "ViLaSR-eval"
        import_data(name, PUBLISHED / source, out / name)
    return out


def run_of(workdir: Path, data: DataSection, **changes) -> Run:
    drawing = DrawingSection(prompt="short", max_turns=4, maze_turns=6)
    engine = EngineSection(prompt_tokens=(700,), prompt_images=(4,))
    buckets = BucketSection(tokens=(1024,), images=(8,))
    plain = {"tasks": (), "data": data, "drawing": drawing, "engine": engine, "buckets": buckets}
    job = JobConfig(**{**plain, **changes})
    return open_run(job, workdir, tiny.mesh())


def test_questions_come_in_an_order_of_their_own_each_time_round(tmp_path, imported):
    run = run_of(tmp_path, DataSection(questions=(str(imported / "rl"),), questions_pixels=28 * 28))
    run.model.__dict__["tokenizer"] = tiny.tokenizer()
    ids = [row.id for row in run.questions.rows("rl", 9)]
    assert [sorted(ids[at : at + 3]) for at in (0, 3, 6)] == [[f"vilasr_rl_data-{n}" for n in range(3)]] * 3
    assert [row.id for row in run.questions.rows("rl", 4, first=5)] == ids[5:]
    assert all(image.size == (28, 28) for row in run.questions.rows("rl", 2) for image in row.images[:1])
    with pytest.raises(ConfigError, match=r"config\.data\.reflect_questions"):
        run.questions.rows("reflect", 1)


def test_imports_of_one_file_hold_the_same_rows(tmp_path, monkeypatch):
    source = tmp_path / "source"
    (source / "rl").mkdir(parents=True)
    Image.new("RGB", (56, 56)).save(source / "p.png")
    for name in ("x", "y"):
        (source / "rl" / f"{name}.jsonl").write_text(json.dumps(question(0)))
    (tmp_path / "linked.jsonl").symlink_to(source / "rl" / "x.jsonl")
    folders = {}
    for name, path in {"all": "", "x": "rl/x.jsonl", "y": "rl/y.jsonl", "link": "../linked.jsonl"}.items():
        monkeypatch.chdir(source)
        import_data("rl", path or ".", tmp_path / name, images=".")
        monkeypatch.chdir(tmp_path)
        folders[name] = Imported.origins(str(tmp_path / name))
    assert folders["all"] & folders["x"] and folders["all"] & folders["y"] and folders["x"] & folders["link"]
    assert not folders["x"] & folders["y"]


def test_mazes_have_turns_of_their_own(tmp_path, imported):
    run = run_of(tmp_path, DataSection(questions=(str(imported / "rl"),)))
    run.model.__dict__["tokenizer"] = tiny.tokenizer()
    rows = sorted(run.questions.rows("rl", 3), key=lambda row: row.id)
    turns = [request.session().settings.max_turns for request in run.questions.requests(rows)]
    assert turns == [4, 4, 6]
    assert run.questions.requests(rows)[0].row["meta"]["image_path"] == ["rl/SR/1.png"]


def test_rows_too_large_for_the_engine_are_left_out(tmp_path, imported):
    data = DataSection(questions=(str(imported / "rl"),))
    run = run_of(tmp_path, data, engine=EngineSection(prompt_tokens=(700,), prompt_images=(1,)))
    run.model.__dict__["tokenizer"] = tiny.tokenizer()
    ids = {row.id for row in run.questions.rows("rl", 12)}
    assert ids == {"vilasr_rl_data-0", "vilasr_rl_data-2"}  # the third has two images
    assert [row.source for row in run.questions.rows("rl", 12)[:2]] == [
        run.questions.row("rl", row.source).source for row in run.questions.rows("rl", 2)
    ]
    none = run_of(tmp_path, data, engine=EngineSection(prompt_tokens=(8,), prompt_images=(4,)))
    none.model.__dict__["tokenizer"] = tiny.tokenizer()
    with pytest.raises(DataError, match="none of 3 rows can be used as questions"):
        none.questions.rows("rl", 1)


def test_no_question_repeats_where_others_are_left_out(tmp_path, imported):
    data = DataSection(questions=(str(imported / "rl"),))
    run = run_of(tmp_path, data)
    run.model.__dict__["tokenizer"] = tiny.tokenizer()

    class Engine:
        checked = 0

        def check(self, request):
            Engine.checked += 1
            if request.row["id"] == "vilasr_rl_data-1":
                raise DataError("too large")

    run.rollouts.engine = lambda sampling: Engine()
    ids = [row.id for row in run.questions.rows("rl", 6)]
    for turn in (ids[:2], ids[2:4], ids[4:]):
        assert sorted(turn) == ["vilasr_rl_data-0", "vilasr_rl_data-2"]
    assert [row.id for row in run.questions.rows("rl", 3, first=3)] == ids[3:]
    again = run_of(tmp_path, data)
    again.model.__dict__["tokenizer"] = tiny.tokenizer()
    again.rollouts.engine = run.rollouts.engine
    assert [row.id for row in again.questions.rows("rl", 6)] == ids
    assert Engine.checked == 3  # the second time the file says it
    note = json.loads((tmp_path / "left_out" / "questions.json").read_text())
    assert note["left_out"] == [{"number": 1, "id": "vilasr_rl_data-1", "reason": "too large"}]


def test_a_question_whose_picture_can_not_be_read_is_left_out(tmp_path, imported):
    rows = list(StoredRows([imported / "rl"]))
    folder = tmp_path / "rows"
    broken = dataclasses.replace(rows[0], images=(b"GIF89a no more",))
    write_shard(folder / "rows-00000.array_record", [r.to_bytes() for r in (broken, *rows[1:])], {})
    write_json(folder / "index.json", {"format": "rl", "rows": 3, "shards": ["rows-00000.array_record"]})
    run = run_of(tmp_path, DataSection(questions=(str(folder),)))
    run.model.__dict__["tokenizer"] = tiny.tokenizer()
    assert {row.id for row in run.questions.rows("rl", 4)} == {rows[1].id, rows[2].id}


def test_questions_that_no_answer_earns_are_left_out(tmp_path):
    rows = [
        dataclasses.replace(
            stored_conversation(f"row-{n}", "?"),
            messages=(),
            answer=answer,
            question_type=kind,
            options=options,
        )
        for n, (answer, kind, options) in enumerate(
            [
                ("right", "multiple choice", ("A. left", "B. right")),
                ("E", "multiple choice", ("A. left", "B. right")),
                ("1", "multiple choice", ("A. left", "B. right")),
                ("about 3", "regression", ()),
                ("3 m", "numerical", ()),
            ]
        )
    ]
    run = run_of(tmp_path, DataSection(questions=(written(tmp_path / "rows", rows),)))
    run.model.__dict__["tokenizer"] = tiny.tokenizer()
    assert {row.id for row in run.questions.rows("rl", 9)} == {"row-0", "row-4"}
    note = json.loads((tmp_path / "left_out" / "questions.json").read_text())
    reasons = [line["reason"] for line in note["left_out"]]
    assert reasons[0] == "answer 'E' isn't one of the 2 options"
    assert reasons[2] == "answer 'about 3' can't be read as one of type 'regression'"


def test_recorded_conversations_are_what_the_cold_start_reads(tmp_path, imported):
    run = run_of(tmp_path, DataSection(traces=(str(imported / "cold_start"),)))
    (source,), weights = run.examples.traces
    assert weights == [1.0] and len(source) == 3
    for example, stored in zip(source, StoredRows([imported / "cold_start"]), strict=True):
        full = encode_conversation(run.model.tokenizer, stored.conversation(784, 1280 * 784))
        assert np.array_equal(example.ids, full.ids) and example.loss_mask.any()
        assert len(example.images) == 2
    mixed = run_of(tmp_path, dataclasses.replace(run.job.data, traces_fraction=0.25))
    mixed = open_run(dataclasses.replace(mixed.job, tasks=("maze",)), tmp_path, tiny.mesh())
    assert mixed.examples.traces[1] == [0.25, 0.75]
    wrong = run_of(tmp_path, DataSection(traces=(str(imported / "rl"),)))
    with pytest.raises(DataError, match="without a recorded conversation"):
        wrong.examples.recorded("traces")[0]


def test_older_function_calls_that_count_from_0_are_left_out(tmp_path):
    rows = []
    for number, first in enumerate((1, 0)):
        row = stored_conversation(f"row-{number}", "?")
        system = {"role": "system", "content": f"Images are numbered from {first}. "}
        rows.append(dataclasses.replace(row, messages=(system, *row.messages), actions="tool_call"))
    drawing = DrawingSection(prompt="short", actions="tool_call")
    data = DataSection(traces=(written(tmp_path / "rows", rows),))
    assert len(run_of(tmp_path, data, drawing=drawing).examples.recorded("traces")) == 1
    note = json.loads((tmp_path / "left_out" / "traces.json").read_text())
    assert [line["reason"].split(";")[0] for line in note["left_out"]] == [
        "row row-1: its words number images from 0"
    ]


def stored_conversation(name: str, question: str, image: bytes | None = None) -> StoredRow:
    """A conversation of one picture, whose length is that of its question."""
    out = io.BytesIO()
    Image.new("RGB", (56, 56), "teal").save(out, "JPEG")
    said = (
        {"role": "user", "content": f"<image>{question}"},
        {"role": "assistant", "content": "<answer>A</answer>"},
    )
    return StoredRow(name, question, "A", "multiple choice", (), (image or out.getvalue(),), "vqa", {}, said)


def written(folder: Path, rows) -> str:
    write_shard(folder / "rows-00000.array_record", [row.to_bytes() for row in rows], {})
    index = {"format": "cold_start", "rows": len(rows), "shards": ["rows-00000.array_record"]}
    (folder / "index.json").write_text(json.dumps(index))
    return str(folder)


def torn_jpeg() -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(out, "JPEG")
    return out.getvalue()[: len(out.getvalue()) // 2]


PACKINGS = {"padded": PackingSection(), "packed": PackingSection(tokens=256, vision_rows=4, patches=36)}


@pytest.mark.parametrize("packing", PACKINGS)
def test_rows_no_stage_can_train_on_are_named_before_step_1(tmp_path, packing, caplog):
    rows = [stored_conversation(f"row-{n}", f"question {n}?") for n in range(12)]
    rows[3] = stored_conversation("row-3", "a long question? " * 100)
    rows[7] = stored_conversation("row-7", "torn?", torn_jpeg())
    data = DataSection(traces=(written(tmp_path / "rows", rows),))
    changes = {"packing": PACKINGS[packing], "buckets": BucketSection((256,), (1,), (36,))}
    run = run_of(tmp_path, data, **changes)
    run.model.__dict__["tokenizer"] = tiny.tokenizer()
    source = run.examples.recorded("traces")
    assert len(source) == 10
    assert read_notes(tmp_path) == {"traces": {"rows": 12, "count": 2, "first": ["row-3", "row-7"]}}
    log = caplog.text
    assert "2 of 12 rows are left out" in log and "row row-3" in log and "row row-7: 1" in log
    # A run that resumes reads the note, sees the same examples, and never meets those left out.
    again = run_of(tmp_path, data, **changes)
    again.model.__dict__["tokenizer"] = tiny.tokenizer()
    full = run.batching.batches([source], [1], seed=0, batch=2)
    some = [next(full) for _ in range(9)]
    rest = again.batching.batches([again.examples.recorded("traces")], [1], seed=0, batch=2)
    for _ in range(4):
        next(rest)
    state = rest.get_state()
    last = again.batching.batches([again.examples.recorded("traces")], [1], seed=0, batch=2)
    last.set_state(state)
    for batch in some[4:]:
        assert np.array_equal(next(last).tokens, batch.tokens)


def test_no_usable_conversation_is_an_error_before_step_1(tmp_path):
    data = DataSection(traces=(written(tmp_path / "rows", [stored_conversation("row-0", "long " * 400)]),))
    run = run_of(tmp_path, data)
    run.model.__dict__["tokenizer"] = tiny.tokenizer()
    with pytest.raises(
        DataError, match=r"config\.data\.traces: none of 1 rows can be used; the first: row row-0"
    ):
        run.examples.recorded("traces")


def test_an_over_long_example_is_replaced_by_the_next(tmp_path):
    lengths = [5, 900, 6, 7]
    special = tiny.tokenizer().special
    examples = [Encoded(np.full(n, 9, np.int32), np.ones(n, bool), [], special) for n in lengths]
    run = run_of(tmp_path, DataSection(), buckets=BucketSection((16,), (0,), (4,)))
    fitting = SkipUnusable(examples, run.batching.check_example)
    assert [len(fitting[number]) for number in range(4)] == [5, 6, 6, 7]
    batch = next(run.batching.batches([examples], [1], seed=0, batch=4))
    assert sorted(batch.segment_ids.sum(1)) == [5, 6, 6, 7]
    with pytest.raises(DataError, match="none of 1 examples can be trained on"):
        SkipUnusable(examples[1:2], run.batching.check_example)[0]


def test_an_unreadable_question_is_never_sampled(tmp_path):
    rows = [dataclasses.replace(stored_conversation(f"row-{n}", "?"), messages=()) for n in range(3)]
    rows[1] = dataclasses.replace(rows[1], images=(torn_jpeg(),))
    run = run_of(tmp_path, DataSection(questions=(written(tmp_path / "rows", rows),)))
    run.model.__dict__["tokenizer"] = tiny.tokenizer()
    assert {row.id for row in run.questions.rows("rl", 9)} == {"row-0", "row-2"}


def test_a_benchmark_row_that_cannot_be_read_counts_as_wrong(tmp_path):
    rows = [dataclasses.replace(stored_conversation(f"row-{n}", "?"), messages=()) for n in range(4)]
    rows[2] = dataclasses.replace(rows[2], images=(torn_jpeg(),))
    folder = Path(written(tmp_path / "rows", rows))
    (folder / "index.json").write_text((folder / "index.json").read_text().replace("cold_start", "maze"))
    answers = dict.fromkeys((row.id for row in rows), "A")
    run = evaluating(tmp_path, tmp_path, answers, data=DataSection(benchmarks=(str(folder),)))
    evaluate.evaluate_benchmark(run, None, folder, tmp_path / "maze", "rl")
    scores = json.loads((tmp_path / "maze" / "scores.json").read_text())
    assert scores["overall"]["mean"] == 0.75 and scores["n"] == 4
    assert scores["not_asked"] == {"count": 1, "first": ["row-2"]}
    assert [row for call in run.rollouts.engine(None).calls for row in call] == ["row-0", "row-1", "row-3"]


def test_a_benchmarks_broken_record_counts_as_wrong(tmp_path):
    rows = [dataclasses.replace(stored_conversation(f"row-{n}", "?"), messages=()) for n in range(4)]
    folder = Path(written(tmp_path / "rows", rows))
    records = [*(row.to_bytes() for row in rows[:3]), b"\x03\x00\x00\x00{no"]
    write_shard(folder / "rows-00000.array_record", records, {})
    (folder / "index.json").write_text((folder / "index.json").read_text().replace("cold_start", "maze"))
    answers = dict.fromkeys((row.id for row in rows), "A")
    run = evaluating(tmp_path, tmp_path, answers, data=DataSection(benchmarks=(str(folder),)))
    evaluate.evaluate_benchmark(run, None, folder, tmp_path / "maze", "rl")
    scores = json.loads((tmp_path / "maze" / "scores.json").read_text())
    assert scores["overall"]["mean"] == 0.75 and scores["not_asked"] == {"count": 1, "first": ["number 3"]}


def test_changed_benchmarks_are_looked_at_again_in_any_run(tmp_path):
    rows = [dataclasses.replace(stored_conversation(f"row-{n}", "?"), messages=()) for n in range(3)]
    data = DataSection(benchmarks=(written(tmp_path / "rows", rows),))
    (tmp_path / "eval").mkdir()  # something has been evaluated
    (tmp_path / "rl" / "checkpoints").mkdir(parents=True)
    for torn in (1, 2):
        changed = list(rows)
        changed[torn] = dataclasses.replace(rows[torn], images=(torn_jpeg(),))
        written(tmp_path / "rows", changed)
        run = run_of(tmp_path, data)
        run.model.__dict__["tokenizer"] = tiny.tokenizer()
        assert {row.id for row in run.questions.validation_rows(9)} == {"row-0", f"row-{3 - torn}"}


def test_changed_questions_of_a_begun_stage_are_refused(tmp_path):
    rows = [dataclasses.replace(stored_conversation(f"row-{n}", "?"), messages=()) for n in range(3)]
    data = DataSection(questions=(written(tmp_path / "rows", rows),))
    for begun in (False, True):
        run = run_of(tmp_path, data)
        run.model.__dict__["tokenizer"] = tiny.tokenizer()
        if not begun:
            assert len(run.questions.rows("rl", 3)) == 3
            (tmp_path / "rl" / "checkpoints").mkdir(parents=True)
            written(tmp_path / "rows", [dataclasses.replace(row, question="!") for row in rows])
            continue
        with pytest.raises(DataError, match=r"data\.questions: the data has changed .*/rows\); restore"):
            run.questions.rows("rl", 3)


def test_a_process_evaluates_what_the_writer_found_unfinished(tmp_path, imported, monkeypatch):
    """The writer may have added lines before another process counts them."""
    from vilasr_jax.parallel import hosts

    writer = evaluating(tmp_path, imported, {})
    source, folder = imported / "vsi_bench", tmp_path / "vsi"
    evaluate.evaluate_benchmark(writer, None, source, folder, "rl")  # all of it, meanwhile
    other = evaluating(tmp_path, imported, {})
    monkeypatch.setattr(hosts, "is_writer", lambda: False)
    monkeypatch.setattr(evaluate, "is_writer", lambda: False)
    monkeypatch.setattr(hosts, "gather", lambda value: [[2, None] if value == [None, None] else value])
    evaluate.evaluate_benchmark(other, None, source, folder, "rl")
    assert other.rollouts.engine(None).calls == [["vsi_bench-1"]]


def test_no_data_and_no_tasks(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.tasks: name at least one"):
        run_of(tmp_path, DataSection()).tasks.families  # noqa: B018


class Teacher:
    """An engine that answers every question as scripted, after one drawing."""

    def __init__(self, run, answers, stop_at=None):
        self.run, self.answers, self.stop_at, self.calls = run, answers, stop_at, []

    stopped_on_repeat = None  # whether the last conversation would have

    def check(self, request):
        """It has room for every question."""

    def generate(self, params, requests, key, progress=None):
        from tests.evaluation.test_results import trajectory

        if len(self.calls) == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append([request.row["id"] for request in requests])
        out = []
        for request in requests:
            Teacher.stopped_on_repeat = request.session().settings.stop_on_repeat
            for sample in range(request.samples):
                said = self.answers.get(request.row["id"], "B")
                scripted = trajectory(texts=(TURN, TURN2, f"{THINK}Answer\n<answer>{said}</answer>"))
                out.append(
                    dataclasses.replace(
                        scripted, id=f"{request.row['id']}/{sample}", row=request.row, reward={}
                    )
                )
        if progress:
            progress(len(out))
        return out


THINK = "<think> . </think> Action: "
TURN = THINK + 'Object Mapper\n```json\n[{"index": 1, "bbox_2d": [2, 3, 20, 20], "label": "S"}]\n```'
TURN2 = TURN.replace("20, 20", "9, 9")
ANSWERS = {"vilasr_rl_data-0": "A", "vilasr_rl_data-1": "9", "vilasr_rl_data-2": "C"}


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def untimed(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in files(folder).items() if not name.endswith(TIMING)}


def answered_by_teacher(run: Run, answers, stop_at) -> Run:
    """The run with a `Teacher` for its engine."""
    run.model.__dict__["tokenizer"] = tiny.tokenizer()
    engine = Teacher(run, answers, stop_at)
    run.rollouts.engine = lambda sampling: engine
    run.rollouts.sample_on_all_hosts = lambda sampling, *words: engine.generate(*words)
    return run


def teaching(workdir: Path, imported: Path, stop_at=None) -> Run:
    from vilasr_jax.config import SynthesisSection

    data = DataSection(synthesis_questions=(str(imported / "rl"),))
    run = run_of(workdir, data, synthesis=SynthesisSection(questions=6, shard=2, samples=2))
    return answered_by_teacher(run, ANSWERS, stop_at)


def test_teacher_traces_are_written_once_and_read_as_imported(tmp_path, imported):
    from tests.training.test_resume import quiet

    folder = synthesis.run_synthesis(teaching(tmp_path / "full", imported), None, quiet())
    funnel = json.loads((folder / "funnel.json").read_text())
    # 6 questions (3, twice round), 2 samples: two of three questions are answered right.
    assert funnel == {"sampled": 12, "parsed": 12, "right": 8, "executed": 8, "rounds": 8, "kept": 8}
    rows = StoredRows([folder])
    assert len(rows) == 8 and {row.answer for row in rows} == {"A", "C"}
    run = run_of(tmp_path, DataSection(traces=(str(folder),)))
    run.model.__dict__["tokenizer"] = tiny.tokenizer()
    example = run.examples.recorded("traces")[0]
    said = tiny.tokenizer().decode(example.ids[example.loss_mask])
    assert said.count("Object Mapper") == 2 and "<answer>" in said and len(example.images) == 4
    for moment in range(3):
        broken = tmp_path / f"broken {moment}"
        with pytest.raises(KeyboardInterrupt):
            synthesis.run_synthesis(teaching(broken, imported, stop_at=moment), None, quiet())
        (broken / "traces" / "rows-00002.array_record.draft").write_bytes(b"half") if moment else None
        synthesis.run_synthesis(teaching(broken, imported), None, quiet())
        assert untimed(broken) == untimed(tmp_path / "full")


def test_a_teacher_that_is_never_right(tmp_path, imported):
    from tests.training.test_resume import quiet

    run = teaching(tmp_path, imported)
    run.rollouts.engine(None).answers = dict.fromkeys(ANSWERS, "Z")
    with pytest.raises(DataError, match="none of 12 sampled conversations passed the rule"):
        synthesis.run_synthesis(run, None, quiet())


def evaluating(workdir: Path, imported: Path, answers, stop_at=None, data=None) -> Run:
    section = EvalSection(samples=2, shard=1, gallery=1, sampling=SamplingSection(0.75, 0.9))
    data = data or DataSection(benchmarks=(str(imported / "vsi_bench"),), frames=4)
    run = run_of(workdir, data, eval=section)
    return answered_by_teacher(run, answers, stop_at)


def test_a_benchmark_is_scored_as_published(tmp_path, imported):
    answers = {"vsi_bench-0": "5", "vsi_bench-1": "B"}  # of 4: 25 % off, 0.6; the choice is right
    source = imported / "vsi_bench"
    evaluate.evaluate_benchmark(evaluating(tmp_path, imported, answers), None, source, tmp_path / "vsi", "rl")
    scores = json.loads((tmp_path / "vsi" / "scores.json").read_text())
    assert scores["benchmark"] == "vsi_bench" and scores["overall"]["mean"] == pytest.approx(0.8)
    assert {name: t["mean"] for name, t in scores["types"].items()} == pytest.approx(
        {"object_counting": 0.6, "object_rel_direction": 1.0}
    )
    assert scores["pass_at_k"] == {"1": 0.5, "2": 0.5} and scores["samples"] == 2
    settings = scores["settings"]
    assert settings["frames"] == 4 and settings["sampling"]["temperature"] == 0.75
    assert settings["max_turns"] == 4 and settings["maze_turns"] == 6 and settings["samples"] == 2
    assert settings["stop_on_repeat"] is False and not Teacher.stopped_on_repeat
    assert len(settings["prompt"]["sha256"]) == 64 and settings["data"]["format"] == "vsi_bench"
    assert set(scores["scorers"]) == {"regression", "multiple choice"}
    again = read_results(tmp_path / "vsi").to_dict()
    assert {key: scores[key] for key in again} == json.loads(json.dumps(again))
    lines = [json.loads(line) for line in (tmp_path / "vsi" / "results.jsonl").read_text().splitlines()]
    assert [(line["id"], line["sample"]) for line in lines] == [
        ("vsi_bench-0", 0),
        ("vsi_bench-0", 1),
        ("vsi_bench-1", 0),
        ("vsi_bench-1", 1),
    ]
    assert len(lines[0]["image_path"]) == 16 and lines[0]["original_question_type"] == "object_counting"
    pictured = [bool(line["images"]) for line in lines]
    assert pictured == [True, True, False, False]  # the first, and a wrong one


def test_a_stopped_evaluation_ends_with_the_same_files(tmp_path, imported):
    answers, source = {"vsi_bench-0": "4"}, imported / "vsi_bench"
    full = evaluating(tmp_path / "full", imported, answers)
    evaluate.evaluate_benchmark(full, None, source, tmp_path / "full", "rl")
    broken = evaluating(tmp_path / "broken", imported, answers, stop_at=1)
    with pytest.raises(KeyboardInterrupt):
        evaluate.evaluate_benchmark(broken, None, source, tmp_path / "broken", "rl")
    with (tmp_path / "broken" / "results.jsonl").open("a") as file:
        file.write('{"half": ')
    rest = evaluating(tmp_path / "broken", imported, answers)
    evaluate.evaluate_benchmark(rest, None, source, tmp_path / "broken", "rl")
    assert rest.rollouts.engine(None).calls == [["vsi_bench-1"]]
    assert files(tmp_path / "broken") == files(tmp_path / "full")


def test_the_published_config_pins_the_published_evaluation():
    from configs.eval_published import get_config
    from vilasr_jax.config import from_config_dict

    job = from_config_dict(get_config())
    assert (job.eval.sampling.temperature, job.eval.sampling.top_p) == (0.75, 0.9)
    assert job.image.max_pixels == 351_232 and job.data.frames == 16
    assert (job.drawing.max_turns, job.drawing.maze_turns, job.drawing.max_images) == (10, 20, 45)
    assert len(job.data.benchmarks) == 5 and job.tasks == () and to_dict(job)["stages"] == ("eval",)
