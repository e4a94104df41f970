"""What a stage needs is checked before anything runs."""

import dataclasses

import pytest

from tests import tiny
from tests.tasks.stored_rows import write_rows
from vilasr_jax.checks import check
from vilasr_jax.config import DataSection, ModelSection, read_config
from vilasr_jax.errors import ConfigError, DataError
from vilasr_jax.training.run import open_run

JOB = read_config("configs/maze_tiny.py", {"mesh.cpu_devices": 1})


def refused(tmp_path, match, error=ConfigError, **changes):
    with pytest.raises(error, match=match):
        check(open_run(dataclasses.replace(JOB, **changes), tmp_path / "W", tiny.mesh()))
    assert not (tmp_path / "W").exists()


def accepted(tmp_path, **changes):
    check(open_run(dataclasses.replace(JOB, **changes), tmp_path / "W", tiny.mesh()))


@pytest.mark.parametrize("size", ["3b", "7b", "32b", "72b"])
def test_a_published_size_without_weights_is_refused(tmp_path, size):
    refused(tmp_path, "model.init_from", model=ModelSection(preset=size))
    accepted(tmp_path, model=ModelSection(preset=size, random_weights=True))


def test_validation_without_rows_is_refused_before_rl(tmp_path):
    questions = str(write_rows(tmp_path / "q", 3))
    rl = dataclasses.replace(JOB.rl, validate_every=0)
    job = dict(tasks=(), stages=("rl",), data=DataSection(questions=(questions,)))
    often = dataclasses.replace(JOB.rl, validate_every=50)
    refused(tmp_path, r"data\.benchmarks: validation", rl=often, **job)
    accepted(tmp_path, rl=rl, **job)


@pytest.mark.parametrize(
    "stage, key",
    [
        ("cold_start", "data.traces"),
        ("reflect", "data.reflect_questions"),
        ("rl", "data.questions"),
        ("synthesize", "data.synthesis_questions"),
        ("eval", "data.benchmarks"),
    ],
)
def test_a_stage_without_data_or_tasks_is_refused(tmp_path, stage, key):
    other = "questions" if stage != "rl" else "benchmarks"
    data = DataSection(**{other: (str(write_rows(tmp_path / "other", 2)),)})
    refused(tmp_path, key, tasks=(), stages=(stage,), data=data)


def test_a_folder_that_a_later_stage_needs_is_opened_at_once(tmp_path):
    data = DataSection(questions=(str(tmp_path / "nowhere"),))
    refused(tmp_path, r"data\.questions, for rl: .*nowhere", DataError, data=data)
    accepted(tmp_path, stages=("cold_start",), data=data)


def test_questions_given_as_traces_are_refused(tmp_path):
    data = DataSection(traces=(str(write_rows(tmp_path / "q", 2)),))
    refused(tmp_path, "row row-0 is a question without", DataError, data=data)
    data = DataSection(traces=(str(write_rows(tmp_path / "t", 2, trace=True)),))
    accepted(tmp_path, data=data)


def test_reflect_and_rl_have_the_same_questions_only_if_allowed(tmp_path):
    folder, rl = (str(write_rows(tmp_path / "q", 3)),), dataclasses.replace(JOB.rl, validate_every=0)
    data = DataSection(questions=folder, reflect_questions=folder)
    refused(tmp_path, "would use the same questions", tasks=(), stages=("rl",), data=data, rl=rl)
    shared = dataclasses.replace(data, allow_same_questions=True)
    accepted(tmp_path, tasks=(), stages=("rl",), data=shared, rl=rl)


@pytest.mark.parametrize(
    "section, key, value, match",
    [
        ("rl", "epochs", 1.0, r"rl\.epochs counts passes over config\.data\.questions"),
        ("rl", "refill", 2, r"rl\.epochs can't be counted with"),
        ("rl", "old_logprobs", "none", r"old_logprobs='none': choose one of rollout, trained"),
        ("reflect", "loss", "mean", r"reflect\.loss='mean'"),
        ("reflect", "epochs", -1.0, r"reflect\.epochs=-1"),
    ],
)
def test_wrong_values_name_their_key(tmp_path, section, key, value, match):
    changed = dataclasses.replace(getattr(JOB, section), **{key: value})
    data = {}
    if key == "refill":
        changed = dataclasses.replace(changed, epochs=1.0)
        data = {"data": DataSection(questions=(str(write_rows(tmp_path / "q", 3)),))}
    refused(tmp_path, match, **{section: changed}, **data)


def test_recorded_and_sampled_reflection_are_not_mixed(tmp_path):
    data = DataSection(reflect_traces=("t",), reflect_questions=("q",))
    refused(tmp_path, "are both given", data=data)


def test_conversations_longer_than_a_packed_row_are_refused(tmp_path):
    packing = dataclasses.replace(JOB.packing, tokens=400)
    refused(tmp_path, r"480 is more than a packed row, config\.packing\.tokens=400", packing=packing)
