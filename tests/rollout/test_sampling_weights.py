"""Weights as a sampler holds them: read from files, in bfloat16 and int8, and what the steps need besides."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import tiny
from tests.models.small import SMALLS, image_rows
from tests.rollout.test_layouts import CONFIG, engine, params
from vilasr_jax.checkpoint import export_hf
from vilasr_jax.checkpoint.hf_import import open_hf, published_weights
from vilasr_jax.config import MeshSection, SamplingSection
from vilasr_jax.models.params import abstract, build
from vilasr_jax.models.products import InferenceMatrix
from vilasr_jax.parallel import make_mesh
from vilasr_jax.rollout.compiled_steps import CompiledSteps
from vilasr_jax.rollout.sampling_weights import SamplingLayout


@functools.cache
def stored(family, tmp):
    """The weights of a family's small model, in a folder."""
    config = SMALLS[family]
    export_hf(nnx.split(build(config))[1], config, tmp / family)
    opened, _, tensors = open_hf(tmp / family, dtype="bfloat16")
    return opened, published_weights(opened, tensors)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("folders")


# Of one family test_open_checkpoint asserts the same on one device.
@pytest.mark.parametrize("weights", ("", "int8"))
@pytest.mark.parametrize("family", ["qwen3_vl", pytest.param("qwen2_5_vl", marks=pytest.mark.slow)])
def test_reading_gives_what_the_devices_would(family, weights, folder):
    """From a file, layer by layer and split over a model axis; or from parameters on the devices."""
    config, source = stored(family, folder)
    mesh = make_mesh(MeshSection(model=2), jax.devices()[:2])
    layout, seen = SamplingLayout(config, mesh, weights=weights), []
    read = layout.load(source, lambda done, total: seen.append((done, total)))
    laid_out = layout(nnx.split(build(SMALLS[family]))[1])
    assert jax.tree.structure(read) == jax.tree.structure(laid_out)
    for a, b, c in zip(
        *map(jax.tree.leaves, (read, laid_out, layout.abstract(abstract(config)[1]))), strict=True
    ):
        np.testing.assert_array_equal(a, b)
        assert a.sharding == b.sharding == c.sharding and (a.shape, a.dtype) == (c.shape, c.dtype)
    assert seen[-1][0] == seen[-1][1] and seen == sorted(seen)


@pytest.mark.slow
@pytest.mark.parametrize("family", SMALLS)
def test_int8_changes_what_a_model_says_but_little(family):
    """Hidden states and logits of a picture and text, against float32."""
    config = SMALLS[family]
    graphdef, state = nnx.split(build(config, 1))
    vision = image_rows([(1, 4, 6)], 24, config=config)
    tokens = jnp.arange(9)[None]
    index = jnp.where(jnp.arange(9) < 6, jnp.arange(9), -1)[None]

    def logits(weights):
        layout = SamplingLayout(config, tiny.mesh(), weights=weights)
        packed = layout.packed(state)
        if weights:
            matrices = [
                x
                for x in jax.tree.leaves(packed, is_leaf=lambda x: isinstance(x, InferenceMatrix))
                if isinstance(x, InferenceMatrix)
            ]
            assert len(matrices) > 10
        model = nnx.merge(graphdef, packed)
        hidden = model(tokens, jnp.broadcast_to(jnp.arange(9), (3, 1, 9)), tokens * 0 + 1, index, vision)
        return np.asarray(model.logits(hidden))

    exact, rounded = logits(""), logits("int8")
    error = np.abs(rounded - exact).max() / exact.std()
    assert 0 < error < 0.15


@pytest.mark.slow
def test_conversations_with_int8_weights_split_over_devices():
    mesh = make_mesh(MeshSection(data=2, model=2), jax.devices()[:4])
    one, split = engine(tiny.mesh(), weights="int8"), engine(mesh, weights="int8")
    want = one.generate(params(), tiny.requests(4), jax.random.key(0))
    got = split.generate(params(), tiny.requests(4), jax.random.key(0))
    for a, b in zip(want, got, strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens)
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-3)


@pytest.mark.slow
def test_bfloat16_conversations_are_those_of_plain_arrays():
    """The first log-probabilities: later ones differ where rounding chose another token."""
    config = CONFIG.replace(dtype="bfloat16")
    ours = engine(tiny.mesh(), config).generate(params(config), tiny.requests(3), jax.random.key(0))
    exact = engine(tiny.mesh()).generate(params(), tiny.requests(3), jax.random.key(0))
    for a, b in zip(ours, exact, strict=True):
        first = np.flatnonzero(a.loss_mask)[0]
        assert abs(a.logprobs[first] - b.logprobs[first]) < 0.1


@pytest.mark.parametrize("weights", ("", "int8"))
def test_decoding_needs_little_besides_the_weights(weights):
    """Published widths, few layers: with float32 copies the temporaries would be twice the weights."""
    config = CONFIG.replace(
        dtype="bfloat16",
        hidden_size=1024,
        intermediate_size=2048,
        num_layers=3,
        num_heads=8,
        head_dim=128,
        num_kv_heads=2,
        mrope_section=(16, 24, 24),
        vocab_size=40_000,
        init_std=0.02,
        vision=dataclasses.replace(CONFIG.vision, out_hidden_size=1024),
    )
    graphdef, shapes = abstract(config)
    never = np.zeros(config.vocab_size, bool)
    steps = CompiledSteps(
        config,
        graphdef,
        sampling=SamplingSection(),
        suppressed=never,
        stop_ids=(0, 1),
        decode_steps=8,
        stop_fraction=0.9,
        mesh=tiny.mesh(),
    )
    held = SamplingLayout(config, tiny.mesh(), weights=weights).abstract(shapes)
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(held))
    key = jax.eval_shape(lambda: jax.random.key(0))
    compiled = steps.decode.lower(held, steps.abstract_state(1, 256), key).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.2 * size
