"""The tiny Qwen3-VL through a job: cold start, reflect on pixels, RL, evaluation, export, answers."""

import json
import random
import re

import numpy as np
import pytest

from tests import tiny
from tests.models.test_other_family import ADAM, SAMPLING, a_job
from tests.tasks.stored_rows import recorded_conversation
from vilasr_jax.config import (
    BucketSection,
    ColdStartSection,
    DataSection,
    EvalSection,
    ImageSection,
    MazeSection,
    ModelSection,
    ReflectSection,
)
from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.files import write_json
from vilasr_jax.job import evaluate_stages, export
from vilasr_jax.models import by_model_type, family_of
from vilasr_jax.progress import progress_bar
from vilasr_jax.sampler import Sampler
from vilasr_jax.solve import solve
from vilasr_jax.tasks import get_family, replay
from vilasr_jax.tasks.stored import INDEX, write_shard
from vilasr_jax.trained_model import open_model
from vilasr_jax.training.cold_start import run_cold_start
from vilasr_jax.training.grpo import run_rl
from vilasr_jax.training.reflect import run_reflect
from vilasr_jax.training.run import open_run
from vilasr_jax.workdir import open_workdir, read_job

pytestmark = pytest.mark.slow


def traces_in_pixels(folder):
    """Corrected conversations about mazes as a Qwen2.5-VL would have them."""
    family, how = get_family("maze"), DrawingSettings(style="maze", prompt="short", max_turns=9)
    spec = family.spec(MazeSection(grid=3, cell=32, min_moves=2, max_moves=3), "train")
    rows = []
    for seed in range(3):
        trace = family.expert_trace(family.row(spec, seed), random.Random(seed), slip=True)
        rows.append(recorded_conversation(replay(trace, how), f"maze-{seed}"))
    write_shard(folder / "rows-00000.array_record", [row.to_bytes() for row in rows], {})
    index = {"format": "traces", "rows": len(rows), "shards": ["rows-00000.array_record"]}
    write_json(folder / INDEX, index)
    return folder


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen3") / "run"
    job = a_job(
        name="qwen3",
        stages=("cold_start", "reflect", "rl", "eval", "export"),
        data=DataSection(reflect_traces=(str(traces_in_pixels(folder.parent / "traces")),)),
        reflect=ReflectSection(steps=2, batch=2, optimizer=ADAM),
        model=ModelSection(preset="qwen3vl_tiny"),
        image=ImageSection(max_pixels=96 * 96),
        buckets=BucketSection(tokens=(320,), images=(1, 5), patches=(36, 64)),
        cold_start=ColdStartSection(
            steps=2,
            batch=2,
            perception_steps=2,
            perception_batch=2,
            perception_optimizer=ADAM,
            optimizer=ADAM,
        ),
        eval=EvalSection(rows=2, validation_rows=2, sampling=SAMPLING),
    )
    open_workdir(job, folder)
    run = open_run(job, folder, tiny.mesh())
    with progress_bar() as progress:
        params = run_cold_start(run, run.model.initial_params(), progress)
        params = run_reflect(run, params, progress)
        run_rl(run, params, progress)
        evaluate_stages(run, progress)
    export(run)
    return folder


def test_every_stage_runs(workdir):
    for name, steps in {"cold_start": 2, "reflect": 2, "rl": 1}.items():
        assert json.loads((workdir / name / "steps.json").read_text())["steps"] == steps
    assert len(list((workdir / "eval").iterdir())) >= 3


def test_reflect_reads_pixels_in_the_models_coordinates(workdir):
    run = open_run(read_job(workdir), workdir, tiny.mesh())
    source = run.examples.recorded("reflect_traces")
    assert len(source) == 3
    for example in (source[n] for n in range(3)):
        text = run.model.tokenizer.decode(example.ids)
        points = re.findall(r'_point_2d": \[(\d+), (\d+)\]', text)
        assert points and {int(value) for point in points for value in point} <= {167, 500, 833}
        assert {image.size for image in example.images} == {(96, 96)}


def test_solve_prints_a_conversation(workdir, tmp_path, capsys):
    open_model(workdir / "hf").rows("test", 1)[0].images[0].save(tmp_path / "maze.png")
    trajectory = solve([str(tmp_path / "maze.png")], "Where?", workdir / "hf", tmp_path / "out")
    said = capsys.readouterr().out
    assert said.startswith("--- turn 1") and "=== " in said and trajectory.texts


def test_mazes_have_cells_of_full_tokens(workdir):
    rows = open_model(workdir / "hf").rows("train", 1)
    assert rows[0].images[0].size == (96, 96)  # three cells of 32 pixels


def test_an_exported_folder_answers(workdir):
    model = open_model(workdir / "hf")
    assert family_of(model.config) is by_model_type("qwen3_vl") and model.settings.coordinates == 1000
    config = json.loads((workdir / "hf" / "config.json").read_text())
    assert config["architectures"] == ["Qwen3VLForConditionalGeneration"]
    sampler = Sampler(workdir / "hf", slots=1)
    rows = sampler.rows("test", 1)
    (trajectory,) = sampler.sample_rows(rows)
    assert np.isfinite(trajectory.logprobs[trajectory.loss_mask]).all() and rows[0].images[0].size == (96, 96)
