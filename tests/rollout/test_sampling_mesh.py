"""All devices of a machine for a model that samples: the mesh, equal tokens, and what is too small."""

import dataclasses

import jax
import numpy as np
import pytest

from tests import tiny
from tests.rollout.test_layouts import CONFIG, params
from tests.rollout.test_layouts import engine as make
from tests.slice_devices import slice_devices
from vilasr_jax.errors import ConfigError
from vilasr_jax.models import preset
from vilasr_jax.models.params import abstract
from vilasr_jax.parallel import sampling_mesh
from vilasr_jax.rollout import engine as engine_module
from vilasr_jax.slices import SLICES

HEADS = {"one head of keys": (14, 1), "two": (6, 2), "four": (28, 4), "prime": (7, 7), "odd": (15, 5)}
SIZES = {  # (data, model) of 1, 2, 4, 7 and 8 devices with 1, 3 and 11 slots
    "one head of keys": {
        1: [(1, 1)] * 3,
        2: [(1, 1), (2, 1), (2, 1)],
        4: [(1, 1), (4, 1), (4, 1)],
        7: [(1, 1), (7, 1), (7, 1)],
        8: [(1, 1), (4, 1), (8, 1)],
    },
    "two": {
        1: [(1, 1)] * 3,
        2: [(1, 2)] * 3,
        4: [(1, 2), (2, 2), (2, 2)],
        7: [(1, 1), (7, 1), (7, 1)],
        8: [(1, 2), (4, 2), (4, 2)],
    },
    "four": {
        1: [(1, 1)] * 3,
        2: [(1, 2)] * 3,
        4: [(1, 4)] * 3,
        7: [(1, 1), (7, 1), (7, 1)],
        8: [(1, 4), (2, 4), (2, 4)],
    },
    "prime": {
        1: [(1, 1)] * 3,
        2: [(1, 1), (2, 1), (2, 1)],
        4: [(1, 1), (4, 1), (4, 1)],
        7: [(1, 7)] * 3,
        8: [(1, 1), (4, 1), (8, 1)],
    },
    "odd": {
        1: [(1, 1)] * 3,
        2: [(1, 1), (2, 1), (2, 1)],
        4: [(1, 1), (4, 1), (4, 1)],
        7: [(1, 1), (7, 1), (7, 1)],
        8: [(1, 1), (4, 1), (8, 1)],
    },
}


@pytest.mark.parametrize("heads", HEADS)
def test_the_mesh_of_1_to_8_devices(heads):
    number, kv = HEADS[heads]
    config = CONFIG.replace(num_heads=number, num_kv_heads=kv)
    for count, wanted in SIZES[heads].items():
        for slots, (data, model) in zip((1, 3, 11), wanted, strict=True):
            mesh = sampling_mesh(config, slots, jax.devices()[:count])
            assert dict(mesh.shape) == {"data": data, "fsdp": 1, "model": model}, (count, slots)


def test_published_sizes_on_a_host_of_v5e():
    devices = slice_devices(SLICES["v5e-8"])[:4]  # of one host
    assert sampling_mesh(preset("7b"), 8, devices).shape["model"] == 4
    mesh = sampling_mesh(preset("3b"), 8, devices)
    assert (mesh.shape["data"], mesh.shape["model"]) == (2, 2)


@pytest.mark.parametrize(
    "weights",
    ["", pytest.param("int8", marks=pytest.mark.slow), pytest.param("bf16", marks=pytest.mark.slow)],
)
def test_eight_devices_sample_the_tokens_of_one(weights):
    """Greedy, with turns that draw; 4 heads, 2 of keys and values: the model is split, too."""
    config = CONFIG.replace(dtype="bfloat16") if weights == "bf16" else CONFIG
    form, sampled = "int8" if weights == "int8" else "", []
    for count, size in ((1, (1, 1)), (8, (4, 2))):
        mesh = sampling_mesh(config, 4, jax.devices()[:count])
        assert (mesh.shape["data"], mesh.shape["model"]) == size
        runner = make(mesh, config, weights=form, sampling=tiny.GREEDY)
        held = runner.load(jax.device_get(params(config)))
        assert {leaf.sharding.mesh for leaf in jax.tree.leaves(held)} == {mesh}
        sampled.append(runner.generate(held, tiny.requests(5), jax.random.key(0)))
    for one, other in zip(*sampled, strict=True):
        if weights == "bf16":  # sums over devices round differently, which decides close calls between tokens
            first = int(one.loss_mask.argmax())
            np.testing.assert_allclose(one.logprobs[first], other.logprobs[first], atol=0.1)
        else:
            assert len(one.turns) == len(other.turns)
            np.testing.assert_array_equal(one.tokens, other.tokens)


@pytest.mark.parametrize(
    "gib, ways",
    [
        (2.0, "max_tokens=8192 (2 GiB) or slots=2 (1.95 GiB) or weights=int8 (1.91 GiB)"),
        (1.0, "weights=int8, slots=1 (0.915 GiB)"),
        (0.7, ""),
    ],
)
def test_too_small_says_the_sum_and_what_fits(monkeypatch, gib, ways):
    """Published widths in bfloat16, two layers, 8 conversations."""
    monkeypatch.setattr(engine_module, "device_limit", lambda *_: int(gib * 2**30))
    config = preset("3b", dtype="bfloat16", param_dtype="bfloat16", num_layers=2, vocab_size=40_000)
    sampling = dataclasses.replace(tiny.GREEDY, max_tokens=32_768, max_turn_tokens=1024)
    runner = make(tiny.mesh(), config, sampling=sampling, prompt_tokens=(2048,), slots=8)
    with pytest.raises(ConfigError) as error:
        runner.load(abstract(config)[1])
    advice = f"It fits with {ways}" if ways else "No smaller setting fits: it needs more or larger devices"
    assert str(error.value).startswith("it does not fit: rollout: 8 conversations of 32768 tokens")
    assert str(error.value).endswith(f"in all 2.75 of {gib:.3g} GiB on each device. {advice}")
