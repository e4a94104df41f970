"""A model answers alike from its workdir and from the folder that was exported from it."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from vilasr_jax import cli
from vilasr_jax.checkpoint import convert_from_hf, convert_to_hf, export_hf
from vilasr_jax.config import (
    DrawingSection,
    EvalSection,
    ImageSection,
    JobConfig,
    MazeSection,
    SamplingSection,
)
from vilasr_jax.conversation_settings import SETTINGS_FILE, drawing_settings, question_data_type
from vilasr_jax.drawing import DrawingSession
from vilasr_jax.drawing.prompts import PROMPTS
from vilasr_jax.errors import CheckpointError, ConfigError
from vilasr_jax.job import export, open_workdir
from vilasr_jax.models import by_model_type, default_family
from vilasr_jax.rollout import Engine
from vilasr_jax.sampler import Sampler
from vilasr_jax.serve import Limits
from vilasr_jax.serve.run import make_worker, samples
from vilasr_jax.solve import solve
from vilasr_jax.tasks import get_family
from vilasr_jax.trained_model import open_model
from vilasr_jax.training.run import open_run

# No value that a conversation depends on is a default.
WORDS = PROMPTS["short"]
JOB = JobConfig(
    name="alike",
    seed=3,
    tasks=("maze",),
    image=ImageSection(max_pixels=84 * 84),
    drawing=DrawingSection(
        prompt="short", style="maze", tools=("path_tracer", "erase"), max_turns=3, maze_turns=5, max_images=4
    ),
    maze=MazeSection(grid=3, min_moves=2, max_moves=3, ood_grid=3),
    eval=EvalSection(sampling=SamplingSection(0.6, 0.8, max_turn_tokens=9, max_tokens=320)),
)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run whose cold start is over, with random weights, and its export in `hf`."""
    folder = tmp_path_factory.mktemp("run")
    open_workdir(JOB, folder)
    run = open_run(JOB, folder, tiny.mesh())
    stage = run.stages["cold_start"]
    stage.save(stage.steps, {"params": run.model.initial_params()})
    stage.close()
    export(run)
    return folder


@pytest.fixture
def drawing(monkeypatch):
    draw_each_turn(monkeypatch)


def draw_each_turn(monkeypatch):
    """Whatever the model writes, each turn draws one more line."""
    step = DrawingSession.step

    def scripted(self, text, **more):
        at = 10 + 9 * len(self.events)
        line = f'[{{"index": 1, "start_point_2d": [14, 14], "end_point_2d": [{at}, 40], "label": "{at}"}}]'
        return step(self, f"<think> a </think> Action: Path Tracer\n```json\n{line}\n```", **more)

    monkeypatch.setattr(DrawingSession, "step", scripted)


def test_an_export_answers_as_its_workdir_does(workdir, drawing):
    ours, theirs = (Sampler(folder, slots=2) for folder in (workdir, workdir / "hf"))
    rows = ours.rows("test", 2)
    assert [row.question for row in theirs.rows("test", 2)] == [row.question for row in rows]
    ways = [
        lambda sampler: sampler.sample_rows(rows, temperature=0.7, top_p=0.9, seed=4),
        lambda sampler: sampler.sample(rows[0].images[0].resize((200, 130)), "Where does it end?", "ABCD"),
    ]
    for sample in ways:
        for a, b in zip(sample(ours), sample(theirs), strict=True):
            assert a.texts == b.texts and a.stop_reason == b.stop_reason
            np.testing.assert_array_equal(a.tokens, b.tokens)
            assert [image.tobytes() for image in a.images] == [image.tobytes() for image in b.images]
            assert len(a.images) == 4 and a.stop_reason == "image_limit"  # it drew, up to the run's own limit


def test_solve_and_serve_hold_both_alike(workdir, tmp_path, drawing):
    path = tmp_path / "maze.png"
    open_model(workdir).rows("test", 1)[0].images[0].resize((300, 300)).save(path)
    solved = [solve([str(path)], "Where?", folder, tmp_path / "out") for folder in (workdir, workdir / "hf")]
    np.testing.assert_array_equal(solved[0].tokens, solved[1].tokens)
    assert solved[0].images[-1].tobytes() == solved[1].images[-1].tobytes()
    models = [open_model(folder) for folder in (workdir, workdir / "hf")]
    assert [model.config.dtype for model in models] == ["float32", "float32"]
    ours, theirs = (make_worker(model, Limits(slots=2)) for model in models)
    for name in ("settings", "pixels", "sampling"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert theirs.pixels[:2] == (784, 84 * 84) and theirs.settings.max_turns == 5
    assert theirs.engine.sampling == ours.engine.sampling


class _Stopped(BaseException):
    pass


def test_frames_are_put_in_the_words_of_a_video(workdir, tmp_path, monkeypatch):
    sent = []

    def generate(self, params, requests, key):
        sent.extend(requests)
        raise _Stopped

    monkeypatch.setattr(Engine, "generate", generate)
    monkeypatch.setattr(Engine, "load", lambda *_: None)
    paths = [str(tmp_path / f"{number}.png") for number in range(2)]
    for path in paths:
        Image.new("RGB", (84, 84), "white").save(path)
    words = ["--question=What moves?", f"--checkpoint={workdir}", f"--out={tmp_path / 'out'}"]
    for video, frames in ((True, "2 frames"), (False, "2 images")):
        flags = ["--video"] if video else []
        for ask in (
            lambda video=video: Sampler(workdir, slots=1, images=2).sample(paths, "What moves?", video=video),
            lambda flags=flags: cli.main(["vilasr", "solve", *paths, *words, *flags]),
        ):
            with pytest.raises(_Stopped):
                ask()
            request = sent.pop()
            session = request.session()
            assert frames in session.messages[0]["content"][0]["text"]
            assert (request.row["data_type"], session.settings.max_turns) == (
                ("video", 3) if video else ("maze", 5)
            )

    ask = (
        lambda: Sampler(workdir, slots=1, images=2).sample(paths, "What moves?", video=True, fps=4),
        lambda: cli.main(["vilasr", "solve", *paths, *words, "--video", "--fps=4"]),
    )
    with pytest.raises(ConfigError, match="reads no times"):
        ask[0]()
    with pytest.raises(ConfigError, match="is that of a video"):
        Sampler(workdir, slots=1).sample(paths[0], "What moves?", fps=4)
    family = by_model_type("qwen3_vl")
    monkeypatch.setattr(type(default_family()), "timestamp", family.timestamp)
    for one in ask:
        with pytest.raises(_Stopped):
            one()
        said = sent.pop().session().messages[1]["content"]
        texts = "".join(part.get("text", "<image>") for part in said)
        assert re.findall(r"<([\d.]+) seconds><image>", texts) == ["0.0", "0.2"]


def test_evaluation_and_questions_have_one_setting(workdir):
    run = open_run(JOB, workdir, tiny.mesh())
    row = open_model(workdir).rows("test", 1)[0]
    assert run.questions.requests([row])[0].session().settings == drawing_settings(JOB, "maze", WORDS)
    assert run.model.settings == drawing_settings(JOB, "vqa", WORDS)
    text = dataclasses.replace(JOB, cold_start=dataclasses.replace(JOB.cold_start, format="text"))
    assert not drawing_settings(text, "maze", WORDS).draw and drawing_settings(JOB, "maze", WORDS).draw


def test_settings_travel_with_a_converted_folder(workdir, tmp_path):
    shutil.copytree(workdir / "hf", tmp_path / "own")
    settings = json.loads((tmp_path / "own" / SETTINGS_FILE).read_text())
    settings["drawing"]["prompt"] = "prompt.json"
    (tmp_path / "own" / SETTINGS_FILE).write_text(json.dumps(settings))
    (tmp_path / "own" / "prompt.json").write_text(json.dumps({"system": "Look.", "name": "own"}))
    convert_from_hf(tmp_path / "own", tmp_path / "orbax")
    convert_to_hf(tmp_path / "orbax", tmp_path / "hf")
    model, before = open_model(tmp_path / "hf"), open_model(tmp_path / "own")
    assert model.job == before.job and model.config == before.config
    assert model.prompts == before.prompts and model.prompts.system == "Look."


def test_other_folders_have_the_published_settings(workdir, tmp_path):
    export_hf(tiny.params(), tiny.config(), tmp_path / "hf", tokenizer=tiny.tokenizer(), max_pixels=50_000)
    model = open_model(tmp_path / "hf")
    assert (model.settings.style, model.prompts.name) == ("published", "vilasr_jax")
    assert (model.job.image.min_pixels, model.job.image.max_pixels) == (56 * 56, 50_000)
    path = tmp_path / "hf" / "preprocessor_config.json"
    path.write_text(json.dumps({"size": {"shortest_edge": 3136, "longest_edge": 12_845_056}}))
    assert open_model(tmp_path / "hf").job.image == ImageSection(3136, 1280 * 28 * 28)
    path.write_text(json.dumps({"min_pixels": 2_000_000, "max_pixels": 12_845_056}))
    assert open_model(tmp_path / "hf").job.image == ImageSection(1280 * 28 * 28, 1280 * 28 * 28)
    for values, limits in (
        ({"max_pixels": 50_176}, (56 * 56, 50_176)),
        ({"min_pixels": 4_000}, (4_000, 28 * 28 * 1280)),
        ({"max_pixels": 2_000}, (2_000, 2_000)),
        ({"size": {"max_pixels": 50_176, "min_pixels": 4_000}}, (4_000, 50_176)),
        ({"size": {"longest_edge": 50_176}}, (56 * 56, 50_176)),
    ):
        path.write_text(json.dumps(values))
        assert open_model(tmp_path / "hf").job.image == ImageSection(*limits), values
    path.write_text(json.dumps({"max_pixels": "few"}))
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: .*max_pixels='few'"):
        open_model(tmp_path / "hf")
    path.write_text(json.dumps({"min_pixels": "few", "max_pixels": 9}))
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json: min_pixels='few'"):
        open_model(tmp_path / "hf")
    path.unlink()
    both = {"image_processor": {"size": {"shortest_edge": 3136, "longest_edge": 60_000}}}
    (tmp_path / "hf" / "processor_config.json").write_text(json.dumps(both))
    assert open_model(tmp_path / "hf").job.image == ImageSection(3136, 60_000)
    (tmp_path / "hf" / SETTINGS_FILE).write_text('{"drawing": {"prompt": "prompt.json"}}')
    with pytest.raises(CheckpointError, match=r"hf/prompt\.json: missing"):
        open_model(tmp_path / "hf")
    (tmp_path / "hf" / SETTINGS_FILE).write_text('{"drawing": {"stile": "maze"}}')
    with pytest.raises(CheckpointError, match=rf"{SETTINGS_FILE}: config\.drawing\.stile"):
        open_model(tmp_path / "hf")


def test_a_published_model_answers_and_has_no_mazes(tmp_path):
    export_hf(tiny.params(), tiny.config(), tmp_path, tokenizer=tiny.tokenizer())
    model = open_model(tmp_path)
    assert question_data_type(model.job) == "vqa" and model.job.tasks == ()
    assert model.rows("test", 3) == [] == list(samples(tmp_path, model))


def test_an_export_whose_task_is_elsewhere_offers_no_samples(workdir, tmp_path, monkeypatch, caplog):
    shutil.copytree(workdir / "hf", tmp_path / "hf")
    path = tmp_path / "hf" / SETTINGS_FILE
    settings = json.loads(path.read_text())
    settings["tasks"] = ["their_own.task"]
    path.write_text(json.dumps(settings))
    model = open_model(tmp_path / "hf")
    assert list(samples(tmp_path / "hf", model)) == []
    assert "offers no questions (task 'their_own.task'" in caplog.text
    with pytest.raises(ConfigError, match="their_own"):
        model.rows("test", 1)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "task.py").write_text("FAMILY = 1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"broken\.task.: ZeroDivisionError"):
        get_family("broken.task")
