"""Limits of config values are declared with their fields, and agree with the registries of other folders."""

import dataclasses

import pytest

from vilasr_jax import config
from vilasr_jax.config import check_section, read_config
from vilasr_jax.config.training import GROUPS, OVERLONG, POLICY_LOSSES, SFT_LOSSES
from vilasr_jax.errors import ConfigError
from vilasr_jax.models import params
from vilasr_jax.tasks.sources import FORMATS
from vilasr_jax.training.advantages import ADVANTAGES
from vilasr_jax.training.rejection_sampling import RULES

JOB = read_config("configs/maze_tiny.py")


def choices(section, name):
    return next(f.metadata["choices"] for f in dataclasses.fields(section) if f.name == name)


@pytest.mark.parametrize(
    "section, name, registry",
    [
        (config.ColdStartSection, "format", FORMATS),
        (config.ColdStartSection, "loss", SFT_LOSSES),
        (config.ReflectSection, "loss", SFT_LOSSES),
        (config.RLSection, "loss", POLICY_LOSSES),
        (config.RLSection, "advantage", ADVANTAGES),
        (config.RLSection, "overlong", OVERLONG),
        (config.SynthesisSection, "rule", RULES),
        (config.OptimizerSection, "freeze", params.GROUPS),
    ],
)
def test_choices_are_those_of_the_registry(section, name, registry):
    assert sorted(choices(section, name)) == sorted(registry)
    assert GROUPS and SFT_LOSSES[0] == config.ColdStartSection().loss


def with_value(job, key, value):
    name, _, rest = key.partition(".")
    return dataclasses.replace(job, **{name: with_value(getattr(job, name), rest, value) if rest else value})


@pytest.mark.parametrize(
    "key, value, match",
    [
        ("rl.loss", "mean", r"config\.rl\.loss='mean': choose one of trajectory_mean"),
        ("synthesis.rule", "best", r"synthesis\.rule='best': choose one of"),
        ("cold_start.optimizer.schedule", "step", r"cold_start\.optimizer\.schedule='step': choose"),
        ("reflect.optimizer.freeze", ("tower",), r"freeze='tower': choose one of vision"),
        ("reflect.optimizer.freeze", GROUPS, "nothing is left to train"),
        ("rl.sampling.max_turn_tokens", 0, r"rl\.sampling\.max_turn_tokens=0 must be at least 1"),
        ("eval.rows", -1, r"eval\.rows=-1 must not be negative"),
        ("rl.clip_low", float("nan"), r"rl\.clip_low=nan must be a finite number"),
        ("buckets.tokens", (8, -1), r"buckets\.tokens=\(8, -1\) must not be negative"),
        ("soft_drawing.softness", 0.0, r"softness=0\.0 must be more than 0"),
        ("image.min_pixels", 10**9, r"config\.image: min_pixels=1000000000"),
        ("rl.group", 1, r"rl\.group=1"),
        ("rl.updates", 10**4, r"rl\.updates=10000: at least 1, at most"),
        ("stages", ("cold_start", "fly"), r"stages='fly': choose one of cold_start"),
        ("rl.steps", 0, r"rl\.steps must be at least 1; or leave rl out"),
    ],
)
def test_a_bad_value_is_refused_with_its_key(key, value, match):
    check_section(JOB)
    with pytest.raises(ConfigError, match=match):
        check_section(with_value(JOB, key, value))


def test_weights_of_rewards_and_mesh_sizes_may_be_negative():
    job = with_value(JOB, "rl.rewards", {"accuracy": 1.0, "repeat": -0.5})
    check_section(with_value(job, "mesh.fsdp", -1))
    with pytest.raises(ConfigError, match=r"rl\.rewards=.*finite"):
        check_section(with_value(JOB, "rl.rewards", {"accuracy": float("inf")}))
