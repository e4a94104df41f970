"""The config that a workdir belongs to, and what later commands may change."""

import dataclasses
import json

import pytest

from vilasr_jax.config import ColdStartSection, DataSection, EvalSection, JobConfig, ModelSection, read_config
from vilasr_jax.errors import ConfigError
from vilasr_jax.workdir import open_workdir, read_job, resolve_job


def with_data(**keys) -> JobConfig:
    return JobConfig(data=DataSection(**keys))


def test_data_of_a_later_stage_may_be_named_later(tmp_path):
    open_workdir(with_data(traces=("t",)), tmp_path)
    (tmp_path / "cold_start").mkdir()
    job = open_workdir(with_data(questions=("q",)), tmp_path)  # the traces need not be named again
    assert (job.data.traces, job.data.questions) == (("t",), ("q",))
    assert read_job(tmp_path) == job
    (tmp_path / "rl").mkdir()
    assert resolve_job(with_data(), tmp_path).data.questions == ("q",)


def test_data_that_a_stage_has_used_is_not_exchanged(tmp_path):
    open_workdir(with_data(traces=("t",)), tmp_path)
    assert open_workdir(with_data(traces=("better",)), tmp_path).data.traces == ("better",)
    (tmp_path / "cold_start").mkdir()
    with pytest.raises(ConfigError, match=r"data\.traces: \['better'\] there, \['t'\] now"):
        open_workdir(with_data(traces=("t",)), tmp_path)


def test_a_workdir_of_an_earlier_version_resumes(tmp_path):
    open_workdir(JobConfig(), tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    for section, key in (("cold_start", "loss"), ("reflect", "loss"), ("rl", "epochs")):
        del values[section][key]
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"cold_start\.loss: 'token_mean' there, 'conversation_mean' now"):
        open_workdir(JobConfig(), tmp_path)
    job = JobConfig(cold_start=ColdStartSection(loss="token_mean"))
    job = dataclasses.replace(job, reflect=dataclasses.replace(job.reflect, loss="token_mean"))
    assert open_workdir(job, tmp_path) == job


@pytest.mark.parametrize(
    "before, now, init_from, same",
    [
        ("tiny", "", "", True),  # an earlier version wrote the default
        ("", "tiny", "", True),
        ("tiny", "", "weights", True),
        ("", "7b", "weights", True),  # which is compared with the weights
        ("7b", "", "weights", True),
        ("7b", "3b", "weights", False),
        ("7b", "", "", False),
        ("", "7b", "", False),
    ],
)
def test_a_preset_that_is_left_out_is_that_of_the_workdir(tmp_path, before, now, init_from, same):
    def job(preset: str) -> JobConfig:
        return JobConfig(model=ModelSection(preset=preset, init_from=init_from))

    open_workdir(job(before), tmp_path)
    if same:
        assert resolve_job(job(now), tmp_path) == job(now)
    else:
        with pytest.raises(ConfigError, match=f"model.preset: {before!r} there, {now!r} now"):
            resolve_job(job(now), tmp_path)


def test_rewards_of_ones_own_are_compared(tmp_path):
    job = JobConfig()
    open_workdir(job, tmp_path)
    mine = dataclasses.replace(job, rl=dataclasses.replace(job.rl, rewards={**job.rl.rewards, "mine": 1.0}))
    with pytest.raises(ConfigError, match=r"rl\.rewards\.mine"):
        open_workdir(mine, tmp_path)


def test_the_quickstarts_losses_are_those_of_its_figures():
    job = read_config("configs/maze_tiny.py")
    assert (job.cold_start.loss, job.reflect.loss, job.rl.old_logprobs) == ("token_mean",) * 2 + ("rollout",)


def test_a_stage_uses_its_own_data_or_what_was_named_before(tmp_path):
    """Clearing one key of a stage while giving another is a choice, not something left out."""
    open_workdir(with_data(reflect_traces=("rrs",)), tmp_path)
    mine = resolve_job(with_data(reflect_questions=("q",)), tmp_path).data
    assert (mine.reflect_traces, mine.reflect_questions) == ((), ("q",))
    same = resolve_job(with_data(), tmp_path).data
    assert (same.reflect_traces, same.reflect_questions) == (("rrs",), ())
    (tmp_path / "reflect").mkdir()
    with pytest.raises(ConfigError, match="reflect_questions"):
        resolve_job(with_data(reflect_questions=("q",)), tmp_path)


def test_a_workdir_is_opened_at_the_step_that_was_exported(tmp_path):
    """`eval.best` of the last command."""
    for best in (False, True, False):
        open_workdir(JobConfig(eval=EvalSection(best=best)), tmp_path)
        assert read_job(tmp_path).eval.best == best
