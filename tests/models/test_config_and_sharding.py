"""Presets, checks of sizes, and the layout on a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AbstractMesh, NamedSharding

from tests.models.small import SMALLS
from vilasr_jax.errors import ConfigError
from vilasr_jax.models.params import build
from vilasr_jax.models.qwen2_5_vl import layout, partition_specs, preset
from vilasr_jax.models.transformer.context_parallel import balanced, in_order

# 7B's is the published figure; the others show when a preset changes.
PARAMETERS = {
    "3b": 3_754_622_976,
    "7b": 8_292_166_656,
    "32b": 33_452_718_336,
    "72b": 73_410_777_344,
    "qwen3vl_2b": 2_127_532_032,
    "qwen3vl_4b": 4_437_815_808,
    "qwen3vl_8b": 8_767_123_696,
    "qwen3vl_32b": 33_357_390_064,
}


def abstract(config):
    return nnx.state(nnx.eval_shape(lambda: build(config)), nnx.Param)


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_sizes_have_the_published_number_of_parameters(name):
    assert sum(leaf.size for leaf in jax.tree.leaves(abstract(preset(name)))) == PARAMETERS[name]


def test_overrides_reach_both_towers():
    config = preset(
        "tiny", vocab_size=71, hidden_size=48, head_dim=12, mrope_section=(2, 2, 2), vision={"depth": 1}
    )
    assert (config.vocab_size, config.vision.depth, config.vision.out_hidden_size) == (71, 1, 48)
    hash(config)


@pytest.mark.parametrize(
    "vision, says",
    [
        ({"deepstack_block_indexes": (1, 0)}, "must increase"),
        ({"deepstack_block_indexes": (2,)}, "are blocks"),
        ({"depth": 5, "deepstack_block_indexes": (0, 1, 2, 3)}, "more than num_layers"),
    ],
)
def test_features_that_do_not_fit_are_refused(vision, says):
    with pytest.raises(ConfigError, match=says):
        preset("qwen3vl_tiny", vision=vision)


def test_frequencies_are_interleaved():
    axes = np.array(preset("qwen3vl_8b").axis_of_pair)
    assert np.flatnonzero(axes == 1).tolist() == list(range(1, 59, 3))
    assert np.flatnonzero(axes == 2).tolist() == list(range(2, 60, 3))


@pytest.mark.parametrize(
    "overrides, says",
    [
        ({"width": 5}, "unknown field 'width'"),
        ({"vision": {"layers": 5}}, "unknown field 'layers'"),
        ({"num_kv_heads": 3}, "multiple of num_kv_heads"),
        ({"mrope_section": (1, 2, 3)}, "mrope_section"),
        ({"remat": "some"}, "remat must be one of"),
        ({"attention": "flash"}, "attention backend 'flash' does not exist; choose one of xla, splash"),
        ({"vision": {"num_heads": 5}}, "vision.num_heads"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(overrides, says):
    with pytest.raises(ConfigError, match=says):
        preset("tiny", **overrides)


def test_unknown_preset_is_refused():
    with pytest.raises(ConfigError, match="'8b' does not exist"):
        preset("8b")


@pytest.mark.parametrize("mode", ["training", "rollout"])
@pytest.mark.parametrize("config", [*SMALLS.values(), preset("7b"), preset("qwen3vl_8b")])
def test_every_weight_has_a_spec_of_its_rank(config, mode):
    params = abstract(config)
    specs = partition_specs(params, layout(mode))
    split_axes = set()
    for leaf, spec in zip(
        jax.tree.leaves(params),
        jax.tree.leaves(specs, is_leaf=lambda x: x.__class__.__name__ == "PartitionSpec"),
        strict=True,
    ):
        assert len(spec) <= leaf.ndim
        split_axes |= {name for axes in spec if axes for name in ([axes] if isinstance(axes, str) else axes)}
    assert split_axes == ({"fsdp", "model"} if mode == "training" else {"model"})


@pytest.mark.parametrize("name", ["7b", "qwen3vl_4b", "qwen3vl_8b", "qwen3vl_32b"])
def test_published_sizes_divide_on_a_pod(name):
    """fsdp 16 x model 4 cuts every weight evenly."""
    mesh = AbstractMesh((1, 16, 4), ("data", "fsdp", "model"))
    params = abstract(preset(name))
    specs = jax.tree.leaves(
        partition_specs(params), is_leaf=lambda x: x.__class__.__name__ == "PartitionSpec"
    )
    for leaf, spec in zip(jax.tree.leaves(params), specs, strict=True):
        NamedSharding(mesh, spec).shard_shape(leaf.shape)


@given(st.integers(1, 8), st.integers(1, 9))
def test_each_device_gets_a_part_of_both_ends(n, size):
    order = balanced(2 * n * size, n)
    assert sorted(order) == list(range(2 * n * size))
    work = (order + 1).reshape(n, -1).sum(axis=1)  # of causal attention: a token sees all before it
    assert len(set(work)) == 1


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_the_order_of_devices_and_back(n):
    order = balanced(2 * n * 5, n)
    np.testing.assert_array_equal(in_order(jnp.asarray(order)[None], n)[0], np.arange(2 * n * 5))
