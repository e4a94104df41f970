"""The tiny Qwen3-VL through a job: cold start, RL, evaluation, export, and an answer from the export."""

import json

import numpy as np
import pytest

from tests import tiny
from tests.models.test_other_family import ADAM, SAMPLING, a_job
from vilasr_jax.config import BucketSection, ColdStartSection, EvalSection, ImageSection, ModelSection
from vilasr_jax.job import evaluate_stages, export
from vilasr_jax.models import by_model_type, family_of
from vilasr_jax.progress import progress_bar
from vilasr_jax.sampler import Sampler
from vilasr_jax.trained_model import open_model
from vilasr_jax.training.cold_start import run_cold_start
from vilasr_jax.training.grpo import run_rl
from vilasr_jax.training.run import open_run
from vilasr_jax.workdir import open_workdir

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen3") / "run"
    job = a_job(
        name="qwen3",
        stages=("cold_start", "rl", "eval", "export"),
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
        run_rl(run, params, progress)
        evaluate_stages(run, progress)
    export(run)
    return folder


def test_every_stage_runs(workdir):
    for name, steps in {"cold_start": 2, "rl": 1}.items():
        assert json.loads((workdir / name / "steps.json").read_text())["steps"] == steps
    assert len(list((workdir / "eval").iterdir())) >= 3


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
