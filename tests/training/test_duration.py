"""A stage is as long as its data says, and stays that long."""

import json

import numpy as np
import pytest

from tests.training import samples
from vilasr_jax.config import ColdStartSection
from vilasr_jax.errors import DataError
from vilasr_jax.processing import Budget
from vilasr_jax.training.duration import conversations_per_row, plan_steps, stage_steps


def test_steps_follow_passes_over_the_data(tmp_path, capsys):
    section = ColdStartSection(epochs=3.0, steps=9)
    assert stage_steps(tmp_path, section) is None
    assert plan_steps(tmp_path, section, "cold start", "35 conversations", 35, 8.0) == 14
    assert stage_steps(tmp_path, section) == 14
    assert "35 conversations; 14 steps of about 8, 3.2 passes" in capsys.readouterr().err
    assert plan_steps(tmp_path, section, "cold start", "35 conversations", 35, 7.0, begun=True) == 14
    with pytest.raises(DataError, match="began with 35 examples, and there are 70 now"):
        plan_steps(tmp_path, section, "cold start", "data that has grown", 70, 8.0, begun=True)
    assert plan_steps(tmp_path, section, "cold start", "data mended before step 1", 70, 8.0) == 27


def test_many_passes_are_said(tmp_path, capsys):
    assert plan_steps(tmp_path, ColdStartSection(steps=50), "reflect", "35 kept", 35, 8.0) == 50
    assert "11.4 passes" in capsys.readouterr().err
    assert json.loads((tmp_path / "steps.json").read_text())["examples"] == 35


@pytest.mark.parametrize("tokens", [100, 190, 400])
def test_conversations_per_row_are_measured(tokens):
    source = [samples.example(n) for n in range(40)]
    got = conversations_per_row([source], [1.0], Budget(tokens, 40, 96))
    mean = np.mean([len(example) for example in source])
    assert 0.7 * tokens / mean <= got <= tokens / mean
    assert conversations_per_row([source], [1.0], None) == 1
    assert conversations_per_row([source], [1.0], Budget(3, 1, 4)) == 1  # none fits: nothing to measure
