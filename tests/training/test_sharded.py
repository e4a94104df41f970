"""Training on a mesh gives what one device gives, with weights sharded as the layout says."""

import dataclasses
import functools
import re

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from tests import tiny
from tests.training import samples
from vilasr_jax.config import MeshSection, OptimizerSection, RLSection
from vilasr_jax.models.params import decoder_layers, is_norm
from vilasr_jax.models.qwen2_5_vl import Qwen2_5_VL, param_shardings
from vilasr_jax.parallel import make_mesh, place, put_batch
from vilasr_jax.rollout.sampling_weights import SamplingLayout
from vilasr_jax.training.state import init_state, split_frozen
from vilasr_jax.training.steps import make_grpo_steps, make_sft_step

STEPS = 5
VISION = ("vision", "merger")
MESHES = {
    "data": MeshSection(data=8),
    "fsdp": MeshSection(data=2, fsdp=4),
    "model": MeshSection(data=4, model=2),
    "mixed": MeshSection(data=2, fsdp=2, model=2),
}


def adam():
    """Adam with an epsilon far above rounding.

    Else an entry whose gradient is 0 but for rounding (1e-9 where the largest are 1e-3) moves by as much as
    any other, in a direction of chance.
    """
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-4, eps=1e-6))


def config(**changes):
    """Odd widths that 2 and 4 devices still divide."""
    small = tiny.config()
    vision = dataclasses.replace(small.vision, hidden_size=40, intermediate_size=28, out_hidden_size=44)
    sizes = dict(hidden_size=44, intermediate_size=36, num_heads=4, num_kv_heads=2, num_layers=3)
    return small.replace(**sizes, vision=vision, scan_unroll=1, **changes)


def model(**changes):
    graphdef, shapes = nnx.split(nnx.eval_shape(lambda: Qwen2_5_VL(config(**changes), rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(0)

    def weight(path, leaf):
        norm = "norm" in jax.tree_util.keystr(path) or "ln_q" in jax.tree_util.keystr(path)
        return (norm + rng.normal(0, 0.2, leaf.shape)).astype(np.float32)

    return graphdef, jax.tree_util.tree_map_with_path(weight, shapes)


def on(name):
    return tiny.mesh() if name == "one" else make_mesh(MESHES[name])


def batches(**extras):
    return [samples.batch(range(8 * i, 8 * i + 8), **extras) for i in range(STEPS)]


def sft(name, freeze=(), **changes):
    """Losses and parameters after five steps, and the step's compiled program."""
    mesh, (graphdef, params) = on(name), model(**changes)
    optimizer = adam()
    section = OptimizerSection(freeze=freeze)
    state = init_state(place(params, param_shardings(params, mesh)), optimizer, mesh, section)
    data = [put_batch(mesh, batch) for batch in batches()]
    program = make_sft_step(graphdef, optimizer, mesh=mesh).lower(state, data[0]).compile()
    losses = []
    for batch in data:
        state, metrics = program(state, batch)
        losses.append(float(metrics["loss"][0] / metrics["loss"][1]))
    return losses, state, program


def grpo(name, freeze=(), **changes):
    mesh, (graphdef, params) = on(name), model(**changes)
    optimizer = adam()
    section = OptimizerSection(freeze=freeze)
    state = init_state(place(params, param_shardings(params, mesh)), optimizer, mesh, section)
    zero, grad, apply = make_grpo_steps(graphdef, optimizer, RLSection(), tiny.suppressed(26), mesh)
    losses = []
    for batch in batches(logprobs=samples.old_logprobs, advantages=samples.advantage):
        total = grad(state, zero(state), put_batch(mesh, batch), np.float32(1 / 8))
        state, sums = apply(state, total)
        losses.append(float(sums["loss"]))
    assert grad._cache_size() == apply._cache_size() == 1  # a step reads its own output
    return losses, state, None


@functools.cache
def one_device(run, freeze):
    """Losses and state of a run on one device."""
    return run("one", freeze)[:2]


def check_same(run, name, freeze, **changes):
    losses, state, program = run(name, freeze, **changes)
    expected, full = one_device(run, freeze)
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)
    paths = jax.tree_util.tree_leaves_with_path(full.all_params)
    for (path, one), other in zip(paths, jax.tree.leaves(state.all_params), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5, err_msg=jax.tree_util.keystr(path))
    before = jax.tree.leaves(split_frozen(model()[1], freeze)[1])
    for frozen, start in zip(jax.tree.leaves(state.frozen), before, strict=True):
        np.testing.assert_array_equal(frozen, start)
    return state, program


def check_layout(state, name):
    """Every weight, and what the optimiser keeps for it, is split as its spec says."""
    mesh = MESHES[name]
    for tree in (state.params, state.frozen, *_moments(state)):
        places = param_shardings(tree, make_mesh(mesh))
        for (path, leaf), place_ in zip(
            jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(places), strict=True
        ):
            assert leaf.sharding.is_equivalent_to(place_, leaf.ndim), jax.tree_util.keystr(path)
    kernel = state.all_params["language_model"]["layers"]["q_proj"]["kernel"][...]
    assert kernel.addressable_shards[0].data.shape == (3, 44 // mesh.fsdp, 56 // mesh.model)
    head = state.all_params["lm_head"]["kernel"][...]
    assert head.addressable_shards[0].data.size * mesh.fsdp * mesh.model == head.size


def _moments(state):
    adam = [
        s for s in jax.tree.leaves(state.opt_state, is_leaf=lambda s: hasattr(s, "mu")) if hasattr(s, "mu")
    ]
    assert len(adam) == 1
    return adam[0].mu, adam[0].nu


def gathered(program):
    """Shapes of all-gather results in a compiled program."""
    found = re.findall(r"= \(?\w+\[([\d,]*)\][^=]*? all-gather(?:-start)?\(", program.as_text())
    return [tuple(map(int, shape.split(","))) for shape in found]


def test_sft_on_a_mixed_mesh_with_a_frozen_tower():
    state, program = check_same(sft, "mixed", VISION)
    check_layout(state, "mixed")
    assert not jax.tree.leaves(state.params["visual"] if "visual" in state.params else {})
    trained = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert sum(leaf.size for leaf in jax.tree.leaves(state.opt_state)) == 2 * trained + 1  # and a counter
    check_gathers(program)


@pytest.mark.parametrize("attention", ["xla", "splash_interpret"])
def test_sft_with_a_rows_tokens_over_several_devices(attention):
    state, program = check_same(sft, "mixed", VISION, context_parallel=True, attention=attention)
    check_layout(state, "mixed")
    check_gathers(program)


def check_gathers(program):
    """No stack of layers is gathered at once, only a layer when it is used."""
    shapes = gathered(program)
    assert shapes
    stacked = {leaf.shape for leaf in jax.tree.leaves(model()[1]) if leaf.ndim == 3}
    assert stacked and not stacked & set(shapes)


@pytest.mark.slow
@pytest.mark.parametrize("freeze", [(), VISION])
@pytest.mark.parametrize("name", MESHES)
def test_sft_on_every_mesh(name, freeze):
    state, program = check_same(sft, name, freeze)
    check_layout(state, name)
    if name == "data":
        weights = {leaf.shape for leaf in jax.tree.leaves(model()[1])}
        assert not weights & set(gathered(program))  # all weights are gathered already
    elif name != "model":
        check_gathers(program)


@pytest.mark.slow
@pytest.mark.parametrize("freeze", [(), VISION])
@pytest.mark.parametrize("name", MESHES)
def test_grpo_on_every_mesh(name, freeze):
    check_layout(check_same(grpo, name, freeze)[0], name)


def test_weights_move_to_the_rollout_layout_on_the_devices():
    mesh, (_, params) = on("mixed"), model()
    split = place(params, param_shardings(params, mesh))
    moved = SamplingLayout(config(dtype="bfloat16"), mesh)(split)
    layers = [decoder_layers(moved.rest), *moved.layers]
    stacked = jax.tree.map(lambda _, *layers: np.stack(layers), *layers)
    for values, sources in ((stacked, decoder_layers(params)), (moved.rest, params)):
        for (path, value), source in zip(
            jax.tree_util.tree_leaves_with_path(values), jax.tree.leaves(sources), strict=True
        ):
            if value.size:  # stacks of 0 layers
                wanted = source if is_norm(path) else source.astype("bfloat16")
                value = (
                    value.view(jax.numpy.bfloat16) if value.dtype == "uint16" else value
                )  # a matrix on a CPU
                np.testing.assert_array_equal(value, wanted, err_msg=jax.tree_util.keystr(path))
    for path, leaf in jax.tree_util.tree_leaves_with_path(moved):
        name = jax.tree_util.keystr(path)
        assert "fsdp" not in str(leaf.sharding.spec), name
        assert leaf.dtype in (("float32",) if "scale" in name else ("bfloat16", "uint16")), name
    kernel = moved.layers[0]["q_proj"]["kernel"].get_value().values
    assert kernel.sharding.is_equivalent_to(jax.sharding.NamedSharding(mesh, P(None, "model")), 2)
    again = SamplingLayout(config(), mesh)(split).rest["lm_head"]["kernel"][...]
    np.testing.assert_array_equal(again, params["lm_head"]["kernel"][...])
