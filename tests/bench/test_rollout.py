"""The rollout benchmark, on a model and conversations small enough for a test."""

import importlib.util

import pytest

from tests import tiny
from vilasr_jax.bench.rollout import REREAD, bench_rollout
from vilasr_jax.bench.rollout_load import Load, ScriptedSession, Subject


def test_a_scripted_session_draws_whatever_is_written():
    session = ScriptedSession(Load(turns=3, side=56), 0, 1)
    replies = [session.step("nonsense") for _ in range(3)]
    assert [reply.drawn for reply in replies] == [1, 1, 0] and replies[-1].stop_reason == "answer"
    assert all(8 <= limit <= 80 for limit in session.limits)
    again = ScriptedSession(Load(turns=3, side=56), 0, 1)
    assert again.limits == session.limits and again.script == session.script


@pytest.mark.slow
def test_all_three_hold_the_same_conversations(capsys):
    subject = Subject(tiny.config(), tiny.graphdef(), tiny.params(), tiny.tokenizer())
    load = Load(questions=2, group=2, turns=3, side=56, shortest=2, longest=5, slots=4)
    result = bench_rollout(load, subject)
    ours, again = result["records"][:2]
    assert again["name"] == REREAD and ours["compilations"] == 0
    assert ours["sampled_tokens"] == again["sampled_tokens"] and ours["images"] < again["images"]
    assert ours["prefilled"] < again["prefilled"]
    if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
        assert "transformers wrote the same tokens in 2 of 2" in capsys.readouterr().out
        assert result["records"][2]["name"] == "transformers"
