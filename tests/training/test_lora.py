"""LoRA trains its factors alone; merging them changes no output."""

import dataclasses

import jax
import numpy as np
import pytest

from tests import tiny
from tests.training import samples
from vilasr_jax.config import MeshSection, OptimizerSection
from vilasr_jax.parallel import make_mesh
from vilasr_jax.training import lora
from vilasr_jax.training.optimizers import make_optimizer
from vilasr_jax.training.state import init_state
from vilasr_jax.training.steps import make_sft_step

SECTION = OptimizerSection(
    learning_rate=1e-2, schedule="constant", warmup_fraction=0, lora_rank=3, lora_alpha=6.0
)


def test_only_the_factors_are_trained():
    optimizer = make_optimizer(SECTION, 9)
    state = init_state(tiny.params(), optimizer, tiny.mesh(), SECTION)
    for start, now in zip(*map(jax.tree.leaves, (tiny.params(), state.all_params)), strict=True):
        np.testing.assert_array_equal(start, now)  # B is zero: nothing is added yet
    sizes = [leaf.size for leaf in jax.tree.leaves(state.params)]
    assert sum(leaf.size for leaf in jax.tree.leaves(state.opt_state)) == 2 * sum(sizes) + 2
    assert sum(sizes) < 0.3 * sum(leaf.size for leaf in jax.tree.leaves(tiny.params()))
    step, losses = make_sft_step(tiny.graphdef(), optimizer), []
    for _ in range(6):
        state, metrics = step(state, samples.batch(range(8)))
        losses.append(float(metrics["loss"][0] / metrics["loss"][1]))
    assert losses[-1] < losses[0]
    changed = {
        jax.tree_util.keystr(path): np.asarray(now - start)
        for (path, now), start in zip(
            jax.tree_util.tree_leaves_with_path(state.all_params), jax.tree.leaves(tiny.params()), strict=True
        )
        if not np.array_equal(now, start)
    }
    assert len(changed) == len(state.params) == 7 and all("layers" in name for name in changed)
    for addition in changed.values():
        for layer in addition:
            assert np.linalg.matrix_rank(layer, tol=1e-5) <= 3


def test_factors_are_sharded_as_their_kernels():
    mesh = make_mesh(MeshSection(data=2, fsdp=2, model=2))
    state = init_state(tiny.params(), make_optimizer(SECTION, 9), mesh, SECTION)
    pair = next(value for name, value in state.params.items() if "q_proj" in name)
    assert pair["a"].addressable_shards[0].data.shape == (2, 21, 3)
    assert pair["b"].addressable_shards[0].data.shape == (2, 3, 21)


@pytest.mark.parametrize("alpha", [3.0, 12.0])
def test_merging_by_hand(alpha):
    section = dataclasses.replace(SECTION, lora_alpha=alpha)
    state = init_state(tiny.params(), make_optimizer(section, 9), tiny.mesh(), section)
    rng = np.random.default_rng(0)
    factors = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), state.params)
    full = lora.merged(state.frozen, factors)
    name = next(name for name in factors if "down_proj" in name)
    kernel = np.asarray(tiny.params()["language_model"]["layers"]["mlp"]["down_proj"]["kernel"][...])
    want = kernel + alpha / 3 * np.einsum("lir,lro->lio", factors[name]["a"], factors[name]["b"])
    got = full["language_model"]["layers"]["mlp"]["down_proj"]["kernel"][...]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
