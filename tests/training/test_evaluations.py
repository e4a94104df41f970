"""Scores say which model they are of, and are never another's."""

import dataclasses
import json

import pytest

from tests import tiny
from vilasr_jax import job as job_module
from vilasr_jax.checkpoint import CheckpointStore
from vilasr_jax.checks import check_weights
from vilasr_jax.config import JobConfig, read_config
from vilasr_jax.errors import ConfigError
from vilasr_jax.report.workdir import stage_label, stage_order
from vilasr_jax.training.evaluate import begin_evaluation, is_evaluated
from vilasr_jax.training.run import open_run
from vilasr_jax.training.stages import Stages

COLD, RL = {"stage": "cold_start", "step": 9}, {"stage": "rl", "step": 4}


def finished(folder, of):
    begin_evaluation(folder, of)
    (folder / "results.jsonl").write_text(json.dumps(of) + "\n")
    (folder / "images").mkdir(exist_ok=True)
    (folder / "scores.json").write_text("{}")


def test_a_control_is_evaluated_again_after_a_later_stage(tmp_path):
    folder = tmp_path / "eval" / "blank_image"
    finished(folder, COLD)
    assert is_evaluated(folder, COLD) and not is_evaluated(folder, RL)
    begin_evaluation(folder, RL)
    assert {path.name for path in folder.iterdir()} == {"model.json"}


def test_another_model_does_not_continue_an_evaluation(tmp_path):
    folder = tmp_path / "eval" / "ood"
    begin_evaluation(folder, COLD)
    (folder / "results.jsonl").write_text("{}\n")
    begin_evaluation(folder, COLD)
    assert (folder / "results.jsonl").exists()
    begin_evaluation(folder, RL)
    assert not (folder / "results.jsonl").exists()


def test_benchmarks_below_a_stages_folder_stay(tmp_path):
    folder = tmp_path / "eval" / "rl"
    finished(folder / "maze", RL)
    finished(folder, RL)
    begin_evaluation(folder, {"stage": "rl", "step": 8})
    assert is_evaluated(folder / "maze", RL) and not is_evaluated(folder / "maze", {"stage": "rl", "step": 8})


def test_scores_of_earlier_versions_stay_under_a_named_model(tmp_path):
    for name, own in (("rl", True), ("blank_image", False)):
        folder = tmp_path / "eval" / name
        finished(folder, RL)
        (folder / "model.json").unlink()
        assert is_evaluated(folder, RL, last_step=4) is own
        assert not is_evaluated(folder, RL, last_step=9)  # the best step's are not the last one's
    assert not is_evaluated(tmp_path / "eval" / "rl", {**RL, "benchmark": "maze"}, last_step=4)


def test_each_checkpoint_folder_is_listed_once(tmp_path, monkeypatch):
    listed = []
    monkeypatch.setattr(
        CheckpointStore, "steps", lambda self: listed.append(self.directory.parent.name) or []
    )
    run = open_run(JobConfig(stages=("cold_start", "reflect", "rl", "eval")), tmp_path, tiny.mesh())
    for find in (job_module.unfinished, job_module.evaluations):
        listed.clear()
        find(run)
        assert listed == ["cold_start", "reflect", "rl"]


def test_a_job_finds_its_unfinished_stages_once(tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(job_module, "unfinished", lambda run: found.append(run) or ["cold_start"])
    monkeypatch.setattr(job_module, "_TRAIN", {"cold_start": lambda run, params, progress: params})
    monkeypatch.setattr(Stages, "start_params", lambda stages, name: None)
    job = read_config("configs/maze_tiny.py", {"mesh.cpu_devices": 1})
    job = dataclasses.replace(job, stages=("cold_start",), mesh=JobConfig().mesh)
    job_module.train(job, tmp_path)
    assert len(found) == 1


def test_a_controls_heading_names_its_model():
    assert stage_label("blank_image", {"model": RL}) == (
        "Control: picture blanked (reinforcement learning, step 4)"
    )
    assert stage_label("rl", {"model": RL}) == "Reinforcement learning"


def test_int8_scores_stay_apart(tmp_path):
    job = JobConfig(stages=("eval",))
    plain, int8 = (
        {one.folder.name: one.of for one in job_module.evaluations(open_run(given, tmp_path, tiny.mesh()))}
        for given in (job, dataclasses.replace(job, engine=dataclasses.replace(job.engine, weights="int8")))
    )
    assert plain == {"untrained": {"stage": "untrained", "step": 0}}
    assert int8 == {"untrained_int8": {"stage": "untrained", "step": 0, "weights": "int8"}}
    finished(tmp_path / "eval" / "untrained", plain["untrained"])
    assert not is_evaluated(tmp_path / "eval" / "untrained_int8", int8["untrained_int8"], last_step=0)
    finished(tmp_path / "eval" / "untrained_int8", int8["untrained_int8"])
    assert is_evaluated(tmp_path / "eval" / "untrained", plain["untrained"])
    (tmp_path / "eval" / "untrained_int8" / "model.json").unlink()
    assert not is_evaluated(tmp_path / "eval" / "untrained_int8", int8["untrained_int8"], last_step=0)
    assert (
        stage_label("rl_int8", {"model": {**RL, "weights": "int8"}}) == "Reinforcement learning, int8 weights"
    )
    assert stage_label("ood_int8", {"model": RL}).endswith("(reinforcement learning, step 4), int8 weights")
    assert sorted(["ood", "rl_int8", "untrained", "rl"], key=stage_order) == [
        "untrained",
        "rl",
        "rl_int8",
        "ood",
    ]


def test_training_samples_with_the_weights_it_trains():
    job = JobConfig(engine=dataclasses.replace(JobConfig().engine, weights="int8"))
    with pytest.raises(ConfigError, match=r"engine.weights='int8' is for evaluations; reflect samples"):
        check_weights(job, ["reflect", "rl", "eval"])
    check_weights(job, ["eval"])
