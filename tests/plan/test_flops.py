"""Topologies by name, and the FLOPs that the mathematics needs."""

import pytest

from vilasr_jax.config import OptimizerSection
from vilasr_jax.errors import ConfigError
from vilasr_jax.models.qwen2_5_vl import preset
from vilasr_jax.models.qwen2_5_vl.flops import vision_forward
from vilasr_jax.models.transformer.flops import decode_step, language_forward
from vilasr_jax.slices import parse_topology
from vilasr_jax.training.flops import flops_per_token, training_factor


def test_topologies():
    assert (parse_topology("v5e:8x8").size, parse_topology("v5p:4x4x8").size) == (64, 128)
    assert parse_topology("v6e:4x4").name == "v6e:4x4"


@pytest.mark.parametrize("name", ["v5e", "v9:2x2", "v5e:2x2x2", "v5p:4x4", "v5e:0x4", "v5p:1x1x1", "8x8"])
def test_what_is_no_topology_is_refused(name):
    with pytest.raises(ConfigError, match="--topology"):
        parse_topology(name)


def test_bandwidth_grows_with_the_sides_that_are_used():
    chip = parse_topology("v5e:8x8").chip.link_bandwidth
    assert parse_topology("v5e:8x8").gather_bandwidth(64) == 2 * chip
    assert parse_topology("v5e:8x8").gather_bandwidth(8) == chip
    assert parse_topology("v5e:16x16").gather_bandwidth(16) == 2 * chip  # closes to a ring


def test_language_flops_are_two_per_weight_and_token():
    config = preset("7b")
    weights = 7_615_616_512 - config.vocab_size * config.hidden_size  # published text model, less its table
    one = language_forward(config, 1, 1)
    assert one == pytest.approx(2 * weights, rel=2e-3)
    long = language_forward(config, 18432, 1)
    assert long == pytest.approx(18432 * (2 * weights + 2 * 28 * 3584 * 18432), rel=2e-3)
    assert language_forward(config, 18432, 5) == 5 * long


def test_vision_flops_scale_with_rows():
    config = preset("7b")
    assert vision_forward(config, 1024, 3) == 3 * vision_forward(config, 1024, 1)
    per_patch = vision_forward(config, 1024, 1) / 1024
    assert 1.25e9 < per_patch < 1.45e9  # about two a weight of 676M, a quarter of the merger, some attention


def test_training_factors():
    assert training_factor((), 0) == (3, 3)
    assert training_factor(("vision", "merger"), 0) == (3, 1)
    assert training_factor((), 8) == (2, 1)
    assert flops_per_token(10, OptimizerSection(freeze=())) == 60
    assert (
        flops_per_token(10, OptimizerSection(freeze=(), lora_rank=8), 1) == 60
    )  # no gradient of the matrices
    assert flops_per_token(10, OptimizerSection(freeze=("language",))) == 40


def test_decoding_reads_what_is_cached():
    config = preset("7b")
    assert decode_step(config, 8, 4096) - decode_step(config, 8, 0) == 8 * 28 * 4 * 3584 * 4096
