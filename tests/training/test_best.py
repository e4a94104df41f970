"""The saved step with the best validation is evaluated and exported on request."""

import dataclasses

import jax
import numpy as np
import pytest

from tests import tiny
from vilasr_jax import job as jobs
from vilasr_jax.config import EvalSection, JobConfig
from vilasr_jax.errors import CheckpointError
from vilasr_jax.progress import progress_bar
from vilasr_jax.rollout import Engine
from vilasr_jax.training.run import open_run
from vilasr_jax.training.stage import Stage


def saved(folder, scores) -> Stage:
    stage = Stage(folder, len(scores), 1, "test")
    for step, score in enumerate(scores, 1):
        items = {"params": {"w": np.full(2, step, np.float32)}}
        stage.save(step, items, score=score, wait=True)
    stage.close()
    return Stage(folder, len(scores), 1, "test")


@pytest.mark.parametrize(
    ("scores", "best"), [((0.2, 0.9, 0.4, 0.1), 2), ((None, 0.3, None, None), 2), ((None, None), 2)]
)
def test_the_best_step_or_the_last(tmp_path, scores, best):
    stage = saved(tmp_path, scores)
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = {"w": jax.ShapeDtypeStruct((2,), np.float32, sharding=where)}
    assert stage.load_params(abstract)["w"][0] == len(scores)
    assert stage.load_params(abstract, best=True)["w"][0] == best


def test_a_damaged_step_is_not_replaced_by_an_earlier_one(tmp_path):
    stage = saved(tmp_path, (None, None))
    for path in (tmp_path / "checkpoints" / "2" / "params").rglob("*"):
        if path.is_file():
            path.write_bytes(b"\0" * path.stat().st_size)
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = {"w": jax.ShapeDtypeStruct((2,), np.float32, sharding=where)}
    with pytest.raises(CheckpointError, match="delete it and run again from step 1"):
        stage.load_params(abstract)
    assert stage.begin({"params": abstract})[0] == 1  # an unfinished stage resumes from what can be read
    stage.close()


@pytest.mark.parametrize("best", [False, True])
def test_evaluation_and_export_read_the_same_step(tmp_path, monkeypatch, best):
    job = dataclasses.replace(JobConfig(), eval=EvalSection(best=best, rows=2))
    run, loaded = open_run(job, tmp_path, tiny.mesh()), []

    def load(name, best=False):
        loaded.append((name, best))
        return name

    monkeypatch.setattr(run.stages, "load_params", load)
    monkeypatch.setattr(run.stages, "last", lambda: "rl")
    evaluation = jobs.Evaluation(tmp_path / "eval", {"stage": "untrained", "step": 0}, list)
    monkeypatch.setattr(jobs, "evaluations", lambda run: [evaluation])
    monkeypatch.setattr(jobs, "_evaluate", lambda *args: None)
    monkeypatch.setattr(Engine, "load", lambda engine, weights, progress: weights)
    monkeypatch.setattr(jobs, "to_host", lambda params: params)
    monkeypatch.setattr(jobs, "export_hf", lambda *args, **options: None)
    vars(run.model).update(tokenizer=tiny.tokenizer(), config=tiny.config())
    jobs.evaluate_stages(run, progress_bar())
    jobs.export(run)
    assert loaded == [("untrained", best), ("rl", best)]
