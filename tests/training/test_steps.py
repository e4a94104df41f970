"""Compiled steps: any micro-batches; the optimisers and whom they touch."""

import jax
import numpy as np
import optax
import pytest
from optax.contrib import MuonDimensionNumbers

from tests import tiny
from tests.training import samples
from vilasr_jax.config import OptimizerSection, RLSection
from vilasr_jax.errors import ConfigError
from vilasr_jax.training.optimizers import _matrices, make_optimizer, make_schedule
from vilasr_jax.training.state import init_state, new_state
from vilasr_jax.training.steps import make_grpo_steps


def close(one, other, atol):
    paths = jax.tree_util.tree_leaves_with_path(one)
    for (path, a), b in zip(paths, jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=atol, err_msg=jax.tree_util.keystr(path))


def grpo(calls, micro):
    zero, grad, _ = calls
    state = new_state(tiny.params(), optax.sgd(1.0), OptimizerSection())
    total = zero(state)
    for batch in micro:
        total = grad(state, total, batch, np.float32(1 / 8))
    return jax.device_get(total)


def test_micro_batches_add_up_to_one_batch():
    """Also when some are padding, and when trajectories without advantage are left out."""
    section = RLSection()
    calls = make_grpo_steps(tiny.graphdef(), optax.sgd(1.0), section, tiny.suppressed(26))
    extras = {"logprobs": samples.old_logprobs, "advantages": samples.advantage}

    def batch(numbers, rows):
        return samples.batch(numbers, rows, **extras)

    gradient, sums = grpo(calls, [batch(range(8), 8)])
    split, split_sums = grpo(calls, [batch([0, 1, 2], 3), batch([3, 4, 5], 3), batch([6, 7], 3)])
    informative, _ = grpo(calls, [batch([1, 2, 3], 3), batch([4, 6, 7], 3)])  # 0 and 5 have no advantage
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient))
    assert scale > 0 and not samples.advantage(5, 1).any()
    close(split, gradient, 1e-5 * scale)
    close(informative, gradient, 1e-5 * scale)
    assert sums["tokens"] == split_sums["tokens"] == samples.batch(range(8)).loss_mask.sum()
    for name, value in sums.items():
        if name == "all_tokens":  # padding too, which depends on how the batch is cut
            continue
        np.testing.assert_allclose(split_sums[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    empty, _ = grpo(calls, [samples.batch([0], 3, **extras)])
    assert all(not leaf.any() for leaf in jax.tree.leaves(empty))

    state = init_state(tiny.params(), optax.sgd(1.0), tiny.mesh(), OptimizerSection())
    state, metrics = calls[2](state, jax.tree.map(np.asarray, (gradient, sums)))
    np.testing.assert_allclose(metrics["grad_norm"][0], optax.tree.norm(gradient), rtol=1e-5)
    stepped = jax.tree.map(lambda p, g: p - g, tiny.params(), gradient)
    close(state.params, stepped, 1e-6 * max(scale, 1))


def test_muon_updates_the_layers_kernels_only():
    chosen = {
        jax.tree_util.keystr(path, simple=True, separator="/"): dims
        for path, dims in jax.tree_util.tree_leaves_with_path(
            _matrices(tiny.params()), is_leaf=lambda x: x is None or type(x) is MuonDimensionNumbers
        )
    }
    leaves = dict(
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tiny.params())
    )
    assert chosen.keys() == leaves.keys()
    for name, dims in chosen.items():
        if dims is None:
            assert "kernel" not in name or "lm_head" in name, name
        else:
            assert leaves[name].ndim in (2, 3) and dims.reduction_axis == leaves[name].ndim - 2, name
    for part in ("q_proj/kernel", "down_proj/kernel", "patch_embed"):
        assert any(part in name for name, dims in chosen.items() if dims is not None), part
    for part in ("lm_head", "embed_tokens", "norm", "bias"):
        assert all(dims is None for name, dims in chosen.items() if part in name), part


def test_muon_makes_each_layers_update_orthogonal():
    optimizer = make_optimizer(
        OptimizerSection(name="muon", learning_rate=1.0, schedule="constant", warmup_fraction=0, clip_norm=0),
        5,
    )
    params = tiny.params()
    rng = np.random.default_rng(0)
    gradient = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), params)
    updates, _ = jax.jit(optimizer.update)(gradient, optimizer.init(params), params)
    update = np.asarray(updates["language_model"]["layers"]["q_proj"]["kernel"][...])
    assert update.shape == (2, 42, 42)
    for layer in update:
        values = np.linalg.svd(layer, compute_uv=False)
        assert values.min() > 0.25 * values.max()  # orthogonal as far as five Newton-Schulz steps make it
    head = np.asarray(updates["lm_head"]["kernel"][...])
    assert np.ptp(np.abs(head)) < 1e-3  # Adam's first step: every entry by the same amount


def test_schedules():
    cosine = make_schedule(OptimizerSection(learning_rate=2.0, warmup_fraction=0.1, final_fraction=0.25), 100)
    got = [float(cosine(step)) for step in (0, 5, 10, 55, 100, 200)]
    np.testing.assert_allclose(got, [0, 1, 2, 1.25, 0.5, 0.5], rtol=1e-6)
    constant = make_schedule(
        OptimizerSection(learning_rate=2.0, schedule="constant", warmup_fraction=0.1), 100
    )
    assert [float(constant(step)) for step in (0, 5, 10, 99)] == [0, 1, 2, 2]
    bare = make_schedule(OptimizerSection(learning_rate=2.0, warmup_fraction=0.0), 1)
    assert float(bare(0)) == 2.0
    for wrong in (OptimizerSection(name="lion"), OptimizerSection(schedule="step")):
        with pytest.raises(ConfigError, match="choose"):
            make_optimizer(wrong, 10)
