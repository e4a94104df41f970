"""Datasets as files: the same bytes however they were generated, readable as TFDS, replayable."""

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tensorflow_datasets.core.dataset_info import DatasetInfo

from tests import tiny
from vilasr_jax.config import (
    ColdStartSection,
    DataSection,
    JobConfig,
    MakeSection,
    ModelSection,
    SceneSection,
    to_config_dict,
)
from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.errors import ConfigError, DataError
from vilasr_jax.models import by_model_type
from vilasr_jax.processing import train_tiny_tokenizer
from vilasr_jax.tasks import dataset, get_family, replay
from vilasr_jax.tasks.dataset import DatasetRows, DatasetTraces, make_data
from vilasr_jax.tasks.show import expert_traces, show_data, show_rows
from vilasr_jax.training.examples import trace_source
from vilasr_jax.training.run import open_run

JOB = JobConfig(tasks=("maze", "static"), make=MakeSection(7, 3, 0, 2, 6, shard=3, workers=1))
SETTINGS = DrawingSettings(style="maze", prompt="short", max_turns=20)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    report = make_data(JOB, folder)
    assert report["static"]["rows"] == {"train": 7, "rl": 3, "test": 2, "ood": 6}
    return folder


def test_an_unfinished_run_resumes_to_the_same_bytes(built, tmp_path):
    seen = []

    def stop(done, total, note):
        seen.append(done)
        if done >= 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_data(JOB, tmp_path, stop)
    with pytest.raises(DataError, match="no finished set"):
        DatasetRows(tmp_path, "static", "train")
    make_data(JOB, tmp_path)
    assert digests(tmp_path) == digests(built)


def test_a_finished_set_is_left_as_it_is(built, tmp_path):
    make_data(JOB, tmp_path)
    assert make_data(JOB, tmp_path)["static"]["rows"]["train"] == 7
    assert digests(tmp_path) == digests(built)


def test_a_run_stopped_between_families_resumes(built, tmp_path, monkeypatch):
    """The maze set is finished, of the static set's description half is written."""
    write = DatasetInfo.write_to_directory

    def half(info, folder, **kwargs):
        write(info, folder, **kwargs)
        if info.name == "static":
            path = Path(folder) / "dataset_info.json"
            path.write_bytes(path.read_bytes()[:100])
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DatasetInfo, "write_to_directory", half)
        with pytest.raises(KeyboardInterrupt):
            make_data(JOB, tmp_path)
    assert len(DatasetRows(tmp_path, "maze", "train")) == 7
    with pytest.raises(DataError, match="no finished set"):
        DatasetRows(tmp_path, "static", "train")
    make_data(JOB, tmp_path)
    assert digests(tmp_path) == digests(built)


def test_rows_and_traces_come_back(built):
    for name in JOB.tasks:
        family = get_family(name)
        rows = DatasetRows(built, family.name, "train")
        assert len(rows) == 7
        want = next(family.rows(family.spec(getattr(JOB, name), "train"), 1))
        have = rows[0]
        assert have.row.question == want.question and have.row.options == want.options
        assert [image.tobytes() for image in have.row.images] == [image.tobytes() for image in want.images]
        for trace in ("expert", "slip"):
            session = have.row.session(SETTINGS)
            for text in have.turns[trace]:
                session.step(text)
            assert session.answer == have.row.answer
        assert replay(have.trace("slip"), SETTINGS) and have.trace("slip").mistakes
    unlike = {DatasetRows(built, "static", "ood")[k].row.meta["unlike"] for k in range(6)}
    assert unlike == {"other look", "harder"}


def test_built_traces_are_training_examples(built):
    tokenizer = train_tiny_tokenizer(["look"], ["look"], 300)
    rows = DatasetRows(built, "maze", "train")
    for form in ("drawing", "text", "direct"):
        source = DatasetTraces(rows, SETTINGS, tokenizer, 5, slip_fraction=0.5, format=form)
        assert len(source) == 5
        one = source[2]
        assert one.loss_mask.any() and (len(one.images) > 1) == (form == "drawing")
        assert tokenizer.decode(one.ids) == tokenizer.decode(source[2].ids)


def test_images_have_the_sides_that_the_model_reads(built, tmp_path):
    family = by_model_type("qwen3_vl")
    job = JobConfig(tasks=("static",), make=MakeSection(2, 0, 0, 0, 0, shard=2, workers=1))
    make_data(job, tmp_path, model_family=family)
    theirs, ours = (DatasetRows(folder, "static", "train")[0].row for folder in (tmp_path, built))
    assert theirs.images[0].size == (288, 288) and ours.images[0].size == (252, 252)
    with pytest.raises(ConfigError, match="other settings"):
        make_data(job, tmp_path)
    job = JobConfig(
        tasks=("static",),
        tokenizer_size=2048,
        model=ModelSection(preset="qwen3vl_tiny"),
        cold_start=ColdStartSection(dataset=str(built)),
    )
    run = open_run(job, tmp_path / "run", tiny.mesh())
    with pytest.raises(
        DataError, match=r"images of 252 x 252 pixels, and the model reads .* multiples of 32"
    ):
        trace_source(job, run.tasks, run.model)
    job = dataclasses.replace(job, cold_start=ColdStartSection(dataset=str(tmp_path), traces=2))
    assert trace_source(job, run.tasks, run.model)[0].images[0].size == (288, 288)


def test_other_settings_are_refused(built):
    other = JobConfig(tasks=("static",), make=MakeSection(8, 3, 0, 2, 6, shard=3))
    with pytest.raises(ConfigError, match="other settings"):
        make_data(other, built)
    with pytest.raises(DataError, match="no split 'val'"):
        DatasetRows(built, "static", "val")
    silly = JobConfig(tasks=("maze", "static"), static=SceneSection(level="silly"))
    with pytest.raises(ConfigError, match="no level 'silly'"):
        make_data(silly, built / "silly")
    assert not (built / "silly").exists()
    with pytest.raises(ConfigError, match=r"config\.make"):
        make_data(JobConfig(tasks=("static",), make=MakeSection(shard=0)), built / "x")


def test_the_builder_makes_a_set_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr("vilasr_jax.tasks.dataset.builder.ROWS", {"train": 4, "ood": 6})
    builder = dataset.Static(data_dir=tmp_path, config="tiny", file_format="array_record")
    builder.download_and_prepare()
    rows = builder.as_data_source(split="train")
    assert len(rows) == 4 and rows[0]["images"][0].shape == (84, 84, 3)
    assert len(builder.as_data_source(split="ood")) == 6
    assert "tensorflow" not in sys.modules


def test_the_page_shows_turns_and_drawings(tmp_path):
    family = get_family("static")
    spec = family.spec(None, "train", level="tiny")
    assert show_rows([("static <b>", expert_traces(family, spec, 2))], SETTINGS, tmp_path / "rows.html") == 2
    page = (tmp_path / "rows.html").read_text()
    assert "static &lt;b&gt;" in page and page.count('class="turn wrong"') == 1
    assert page.count("data:image/png;base64,") >= 5 and "http" not in page.replace("https://json", "")


@pytest.mark.parametrize("folder", [None, "empty"])
def test_a_config_without_tasks_says_what_to_show(tmp_path, folder):
    """It wrote a page of 0 rows. Imported rows are shown by their folder."""
    job = JobConfig(tasks=(), data=DataSection(root="runs/data", traces=("photos",), benchmarks=("b",)))
    page, folder = tmp_path / "page.html", folder and tmp_path / folder
    with pytest.raises(
        ConfigError, match=r"no task to show; .* `vilasr data show runs/data/photos`"
    ) as refused:
        show_data(job, folder, 3, page, by_model_type("qwen2_5_vl"))
    assert (f"{folder} holds no imported rows" in str(refused.value)) == (folder is not None)
    assert not page.exists()


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    """SIGKILL while several processes write: finished afterwards, it equals an unbroken run."""
    config = tmp_path / "config.py"
    job = JobConfig(tasks=("static", "video"), make=MakeSection(60, 20, 0, 10, 12, shard=10, workers=2))
    settings = json.dumps(to_config_dict(job).to_json())
    config.write_text(
        "import json\nfrom ml_collections import ConfigDict\n"
        f"def get_config():\n    return ConfigDict(json.loads({settings}))\n"
    )
    command = [sys.executable, "-m", "vilasr_jax.cli", "data", "make", f"--config={config}"]
    make_data(job, tmp_path / "full")
    for pause in (6, 8, 10):
        process = subprocess.Popen([*command, f"--workdir={tmp_path / 'broken'}"], start_new_session=True)
        time.sleep(pause)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*command, f"--workdir={tmp_path / 'broken'}"], check=True)
    finished = {name: value for name, value in digests(tmp_path / "broken").items() if "draft" not in name}
    assert finished == digests(tmp_path / "full")
