"""The rollout benchmark, on a model and conversations small enough for a test."""

import importlib.util

import jax
import pytest
from flax import nnx

from tests import tiny
from vilasr_jax.bench import sft
from vilasr_jax.bench.render import bench_render
from vilasr_jax.bench.rollout import REREAD, bench_rollout, bench_scale
from vilasr_jax.bench.rollout_load import WORDS, Load, ScriptedSession, Subject, make_subject
from vilasr_jax.bench.sft import bench_sft
from vilasr_jax.errors import ConfigError
from vilasr_jax.models import family_of, preset
from vilasr_jax.models.params import build
from vilasr_jax.processing import train_tiny_tokenizer


def test_a_scripted_session_draws_whatever_is_written():
    session = ScriptedSession(Load(turns=3, side=56), 0, 1)
    replies = [session.step("nonsense") for _ in range(3)]
    assert [reply.drawn for reply in replies] == [1, 1, 0] and replies[-1].stop_reason == "answer"
    assert all(8 <= limit <= 80 for limit in session.limits)
    again = ScriptedSession(Load(turns=3, side=56), 0, 1)
    assert again.limits == session.limits and again.script == session.script


def test_the_model_is_of_the_family_that_is_named():
    """About as large as the one whose figures are in RESULTS.md; a published size is another command's."""
    for size, family in (("tiny", "qwen2_5_vl"), ("qwen3vl_tiny", "qwen3_vl")):
        subject = make_subject(size)
        count = sum(leaf.size for leaf in jax.tree.leaves(subject.params))
        assert subject.config.model_type == subject.tokenizer.special.family.model_type == family
        assert 29e6 < count < 34e6
        config = sft.model_config(size)
        assert family_of(config).model_type == sft.special_tokens(size).family.model_type == family
        side = sft.conversations(sft.special_tokens(size), 1)[0].images[0].width
        assert side % family_of(config).images.factor == 0
    for bench in (bench_rollout, bench_scale, bench_sft):
        with pytest.raises(ConfigError, match=r"--size=7b: small .*qwen3vl_tiny.* `vilasr bench steps`"):
            bench(size="7b")


@pytest.mark.slow
@pytest.mark.parametrize("size", ["tiny", "qwen3vl_tiny"])
def test_supervised_steps_of_both_begin_with_one_loss(size, monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    monkeypatch.setattr(sft, "ROUNDS", 1)
    table = bench_sft(size)
    assert table["ours"]["first_loss"] == pytest.approx(table["theirs"]["first_loss"], rel=1e-4)


def test_drawings_have_the_sides_of_the_model(capsys):
    for size, side in (("tiny", 140), ("qwen3vl_tiny", 128)):
        (record,) = bench_render((140,), (1,), 1, seconds=0, size=size)
        assert record["side"] == side


def small_subject(name: str) -> Subject:
    if name == "tiny":
        return Subject(tiny.config(), tiny.graphdef(), tiny.params(), tiny.tokenizer())
    family = family_of(preset(name))
    tokenizer = train_tiny_tokenizer(list(WORDS), [], 400, family)
    vocabulary = -(-tokenizer.vocab_size // 8) * 8
    config = preset(name, vocab_size=vocabulary, **tokenizer.special.config_fields())
    return Subject(config, *nnx.split(build(config)), tokenizer)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["tiny", "qwen3vl_tiny"])
def test_all_three_hold_the_same_conversations(capsys, size):
    subject = small_subject(size)
    side = 2 * family_of(subject.config).images.factor
    load = Load(questions=2, group=2, turns=3, side=side, shortest=2, longest=5, slots=4)
    result = bench_rollout(load, subject)
    ours, again = result["records"][:2]
    assert again["name"] == REREAD and ours["compilations"] == 0
    assert ours["sampled_tokens"] == again["sampled_tokens"] and ours["images"] < again["images"]
    assert ours["prefilled"] < again["prefilled"]
    if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
        assert "transformers wrote the same tokens in 2 of 2" in capsys.readouterr().out
        assert result["records"][2]["name"] == "transformers"
