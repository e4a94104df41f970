"""The guard against bad updates, rates by group, gradient accumulation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import tiny
from tests.training import samples
from vilasr_jax.config import OptimizerSection
from vilasr_jax.config.training import SFT_LOSSES
from vilasr_jax.errors import ConfigError, TrainingError
from vilasr_jax.training.optimizers import make_optimizer
from vilasr_jax.training.state import Guard, TrainState, check_groups, group_of, new_state, split_frozen
from vilasr_jax.training.step_loop import check_guard
from vilasr_jax.training.steps import GUARD_AFTER, _update, make_sft_step, split_batch


def state_of(value: float, optimizer) -> TrainState:
    params = {"w": jnp.full(3, value)}
    zero = jnp.zeros((), jnp.int32)
    return TrainState(params, optimizer.init(params), zero, {}, Guard(jnp.zeros(()), zero, zero))


def test_bad_updates_are_skipped_and_counted():
    optimizer = optax.adam(0.1)
    state, update = state_of(1.0, optimizer), jax.jit(partial(_update, optimizer, 0.0))
    for loss, gradient in ((0.0, np.nan), (np.inf, 1.0), (0.0, 1.0), (0.0, np.inf)):
        before = state
        state, metrics = update(state, {"w": jnp.full(3, gradient)}, jnp.asarray(loss))
        bad = not np.isfinite(loss + gradient)
        assert metrics["skipped"][0] == bad
        for one, other in zip(*map(jax.tree.leaves, (state[:2], before[:2])), strict=True):
            assert np.isfinite(one).all() and np.array_equal(one, other) == bad
    assert (int(state.step), int(state.guard.skipped), int(state.guard.in_a_row)) == (1, 3, 1)


def test_spikes_are_skipped_once_the_mean_is_known():
    optimizer = optax.sgd(0.0)
    state, update = state_of(1.0, optimizer), jax.jit(partial(_update, optimizer, 5.0))

    def step(state, scale):
        return update(state, {"w": jnp.full(3, scale)}, jnp.zeros(()))[0]

    assert step(state, 1e6).guard.skipped == 0  # nothing to compare with yet
    for _ in range(GUARD_AFTER):
        state = step(state, 1.0)
    np.testing.assert_allclose(state.guard.norm, 3**0.5, rtol=1e-5)
    assert step(state, 4.9).guard.skipped == 0
    skipped = step(state, 5.1)
    assert skipped.guard.skipped == 1
    np.testing.assert_array_equal(skipped.guard.norm, state.guard.norm)
    section = OptimizerSection(max_skipped=2, spike=5.0)
    check_guard(skipped.guard, section)
    with pytest.raises(TrainingError, match="2 updates in a row were skipped"):
        check_guard(step(skipped, 9.0).guard, section)


def test_each_group_has_its_own_rate():
    section = OptimizerSection(
        learning_rate=1.0, schedule="constant", warmup_fraction=0, vision_rate=0.1, merger_rate=0.0
    )
    params = {
        "visual": {"blocks": {"w": jnp.ones(3)}, "merger": {"w": jnp.ones(3)}},
        "language_model": {"w": jnp.ones(3)},
    }
    optimizer = make_optimizer(section, 5)
    updates, _ = jax.jit(lambda p: optimizer.update(p, optimizer.init(p), p))(params)
    sizes = {
        group_of(path): float(abs(leaf[0])) for path, leaf in jax.tree_util.tree_leaves_with_path(updates)
    }
    assert sizes["merger"] == 0 and sizes["vision"] == pytest.approx(0.1 * sizes["language"], rel=1e-3)


def test_groups_are_named():
    trained, frozen = split_frozen(tiny.params(), ("vision", "merger"))
    names = {group_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(trained)}
    others = {group_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(frozen)}
    assert (names, others) == ({"language"}, {"vision", "merger"})
    with pytest.raises(ConfigError, match="no group 'tower'"):
        check_groups(("tower",))
    with pytest.raises(ConfigError, match="nothing is left to train"):
        check_groups(("vision", "merger", "language"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", SFT_LOSSES)
def test_accumulated_parts_are_one_batch(kind):
    batch = samples.batch(range(6))
    parts = split_batch(jax.tree.map(jnp.asarray, batch), 2)
    np.testing.assert_array_equal(parts.tokens[1], batch.tokens[1::2])
    np.testing.assert_array_equal(parts.positions[1], batch.positions[:, 1::2])
    optimizer = optax.sgd(1.0)

    def after(accumulate):
        step = make_sft_step(tiny.graphdef(), optimizer, accumulate=accumulate, loss=kind)
        state = jax.tree.map(jnp.array, new_state(tiny.params(), optimizer, OptimizerSection()))
        state, metrics = step(state, batch)
        return state.params, float(metrics["loss"][0] / metrics["loss"][1])

    (full, loss), (other, same) = after(1), after(3)
    assert same == pytest.approx(loss, rel=1e-5)
    scale = max(
        np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (full, tiny.params())), strict=True)
    )
    for a, b in zip(*map(jax.tree.leaves, (full, other)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * scale)
