"""A stage is as long as its data says, and stays that long."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from tests import tiny
from tests.training import samples
from vilasr_jax.config import BucketSection, ColdStartSection, JobConfig, PackingSection
from vilasr_jax.errors import DataError
from vilasr_jax.training.batching import Batching
from vilasr_jax.training.duration import plan_steps, stage_steps


def plan(
    folder,
    section,
    what="35 conversations",
    *,
    title="cold start",
    examples=35,
    rate=8.0,
    begun=False,
    data=None,
) -> int:
    stage = SimpleNamespace(directory=folder, title=title, begun=begun)
    return plan_steps(stage, section, what=what, examples=examples, rate=rate, data=data)


def test_steps_come_from_passes_over_the_data(tmp_path, capsys):
    section = ColdStartSection(epochs=3.0, steps=9)
    assert stage_steps(tmp_path, section) is None
    assert plan(tmp_path, section) == 14
    assert stage_steps(tmp_path, section) == 14
    assert "35 conversations; 14 steps of about 8, 3.2 passes" in capsys.readouterr().err
    assert plan(tmp_path, section, rate=7.0, begun=True) == 14
    with pytest.raises(DataError, match="began with 35 examples, and there are 70 now"):
        plan(tmp_path, section, "data that has grown", examples=70, begun=True)
    assert plan(tmp_path, section, "data mended before step 1", examples=70) == 27


def test_other_data_of_the_same_length_is_refused(tmp_path):
    def with_data(digest: str, begun: bool = True) -> int:
        data = {"runs/a": "a" * 16, "runs/b": digest * 16}
        return plan(tmp_path, ColdStartSection(), begun=begun, data=data)

    steps = with_data("b", begun=False)
    assert with_data("b") == steps
    with pytest.raises(
        DataError, match=r"cold start: the data has changed .* \(runs/b\); restore it, or choose"
    ):
        with_data("c")
    assert with_data("c", begun=False) == steps == with_data("c")


def test_many_passes_are_said(tmp_path, capsys):
    assert plan(tmp_path, ColdStartSection(steps=50), "35 kept", title="reflect") == 50
    assert "11.4 passes" in capsys.readouterr().err
    assert json.loads((tmp_path / "steps.json").read_text())["examples"] == 35


@pytest.mark.parametrize("tokens", [100, 190, 400])
def test_conversations_per_row_are_measured(tokens):
    source = [samples.example(n) for n in range(40)]

    def per_row(packing: PackingSection) -> float:
        job = JobConfig(packing=packing, buckets=BucketSection((400,), (40,), (96,)))
        model = SimpleNamespace(images=tiny.BUCKETS.spec)
        return Batching(job, model, tiny.mesh()).examples_per_row([source], [1.0])

    got = per_row(PackingSection(tokens, 40, 96))
    mean = np.mean([len(example) for example in source])
    assert 0.7 * tokens / mean <= got <= tokens / mean
    assert per_row(PackingSection()) == 1
    with pytest.raises(DataError, match="32 of 32 examples looked at can't be trained on"):
        per_row(PackingSection(3, 1, 96))
