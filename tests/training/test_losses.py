"""Losses against plain NumPy, and the chunked head against the full one."""

import doctest
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import tiny
from tests.training import samples
from vilasr_jax.training import advantages as advantage_functions
from vilasr_jax.training import losses
from vilasr_jax.training.advantages import group_advantages
from vilasr_jax.training.losses import grpo_loss, sft_loss, sft_weights, token_logprobs

SIZES = dict(clip_low=0.2, clip_high=0.3, dual_clip=3.0)


def random_case(seed: int, b: int = 23, t: int = 11):
    rng = np.random.default_rng(seed)
    old = -rng.exponential(2, (b, t)).astype(np.float32)
    new = old + rng.normal(0, 0.7, (b, t)).astype(np.float32)
    advantages = np.repeat(rng.normal(0, 1.5, (b, 1)), t, axis=1).astype(np.float32)
    mask = rng.random((b, t)) < 0.6
    mask[0] = False  # a padding row
    return new, old, advantages, mask


@pytest.mark.parametrize("seed", range(3))
def test_grpo_loss_by_hand(seed):
    new, old, advantages, mask = random_case(seed)
    counts = dict.fromkeys(losses.GRPO_SUMS, 0.0)
    want = np.zeros(len(new))
    for i, j in np.argwhere(mask):
        r, a = float(np.exp(new[i, j] - old[i, j])), float(advantages[i, j])
        loss = max(-a * r, -a * min(max(r, 0.8), 1.3))
        if a < 0:
            loss = min(loss, -a * 3.0)
        want[i] += loss / mask[i].sum()
        counts["clipped_high"] += a > 0 and r > 1.3
        counts["clipped_low"] += a < 0 and r < 0.8
        counts["dual_clipped"] += a < 0 and r > 3.0
        counts["kl"] += r - 1 - np.log(r)
        counts["tokens"] += 1
    loss, sums = grpo_loss(new, old, advantages, mask, **SIZES)
    np.testing.assert_allclose(loss, want, rtol=1e-4, atol=1e-5)
    for name, value in counts.items():
        np.testing.assert_allclose(sums[name], value, rtol=1e-4, err_msg=name)
    assert counts["dual_clipped"] and counts["clipped_high"] and counts["clipped_low"]


def test_grpo_gradient_is_the_policy_gradient_on_policy():
    """At ratio 1 nothing is clipped: d loss / d logprob = -A / tokens of the trajectory; 0 where masked."""
    new, _, advantages, mask = random_case(5)
    gradient = jax.grad(lambda x: grpo_loss(x, new, advantages, mask, **SIZES)[0].sum())(jnp.asarray(new))
    want = -advantages * mask / np.maximum(mask.sum(1, keepdims=True), 1)
    np.testing.assert_allclose(gradient, want, rtol=1e-5, atol=1e-7)


def test_grpo_ignores_tokens_outside_the_mask():
    new, old, advantages, mask = random_case(6)
    wild = np.where(mask, old, 300.0).astype(np.float32)  # exp(300) overflows
    same, other = (grpo_loss(new, x, advantages, mask, **SIZES) for x in (old, wild))
    np.testing.assert_array_equal(same[0], other[0])
    gradient = jax.grad(lambda x: grpo_loss(x, wild, advantages, mask, **SIZES)[0].sum())(jnp.asarray(new))
    assert np.isfinite(gradient).all() and not np.asarray(gradient)[~mask].any()


@pytest.mark.parametrize("group", [2, 3, 8])
def test_group_advantages(group):
    rewards = np.random.default_rng(group).choice([0, 0.5, 1.0, 0.1], (9, group)).astype(np.float32)
    rewards[4] = 0.1  # not exactly representable: the mean may differ from every member
    rewards[5] = 1 / 3
    got = np.asarray(group_advantages(rewards.reshape(-1), group)).reshape(9, group)
    for mine, row in zip(got, rewards.astype(np.float64), strict=True):
        if np.ptp(row) == 0:
            assert (mine == 0).all()
        else:
            np.testing.assert_allclose(mine, (row - row.mean()) / (row.std(ddof=1) + 1e-6), rtol=1e-4)
    assert not got[4:6].any()
    np.testing.assert_array_equal(group_advantages(np.array([1.0, 0.0]), 1), [0, 0])


@pytest.mark.parametrize("group", [2, 5])
def test_other_advantages_by_hand(group):
    rewards = np.random.default_rng(group).random((7, group)).astype(np.float32)
    rewards[3] = 0.1
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    others = np.array([[r - np.delete(row, i).mean() for i, r in enumerate(row)] for row in rewards])
    for name, want in (("dr_grpo", centred), ("rloo", others)):
        got = group_advantages(rewards.reshape(-1), group, name).reshape(7, group)
        np.testing.assert_allclose(got, want, atol=1e-6)
        assert not got[3].any()


def test_token_mean_sums_tokens_gspo_has_a_ratio_per_trajectory():
    new, old, advantages, mask = random_case(8)
    wide = dict(clip_low=1.0, clip_high=1e9, dual_clip=0.0)  # nothing clips: the loss is -A r
    ratios = np.exp(new - old, dtype=np.float64) * mask
    tokens, _ = grpo_loss(new, old, advantages, mask, **wide, kind="token_mean")
    np.testing.assert_allclose(tokens, -(advantages * ratios).sum(axis=1), rtol=1e-4, atol=1e-5)
    mean = ((new - old) * mask).sum(axis=1) / np.maximum(mask.sum(axis=1), 1)
    loss, _ = grpo_loss(new, old, advantages, mask, **wide, kind="gspo")
    np.testing.assert_allclose(
        loss, np.where(mask.any(axis=1), -advantages[:, 0] * np.exp(mean), 0), rtol=1e-4
    )
    gradient = jax.grad(lambda x: grpo_loss(x, old, advantages, mask, **wide, kind="gspo")[0].sum())(new)
    part = mask / np.maximum(mask.sum(axis=1, keepdims=True), 1)
    np.testing.assert_allclose(gradient, -advantages * np.exp(mean)[:, None] * part, rtol=1e-3, atol=1e-6)


def test_the_conversation_mean_weighs_each_conversation_alike():
    """Packed or not, the loss is the mean over conversations of their tokens' means, as published."""
    rng = np.random.default_rng(3)
    segments = np.array([[1] * 5 + [2] * 11 + [0] * 3, [1] * 17 + [3, 3]])
    mask = (rng.random(segments.shape) < 0.5) & (segments > 0)
    mask[0, 2] = mask[0, 7] = mask[1, 3] = True
    mask[1, 17:] = False  # a conversation without a sampled token counts for nothing
    logprobs = -rng.exponential(1, segments.shape)
    means = [-logprobs[i][mask[i] & (segments[i] == s)].mean() for i, s in ((0, 1), (0, 2), (1, 1))]
    batch = SimpleNamespace(loss_mask=mask, segment_ids=segments)
    total = sft_loss(logprobs, batch, "conversation_mean")
    count = sft_weights(batch, "conversation_mean").sum()
    np.testing.assert_allclose([total / count, count], [np.mean(means), 3], rtol=1e-6)


def test_sft_loss():
    rng = np.random.default_rng(0)
    logprobs, mask = -rng.exponential(1, (5, 9)).astype(np.float32), rng.random((5, 9)) < 0.4
    loss = sft_loss(logprobs, SimpleNamespace(loss_mask=mask))
    np.testing.assert_allclose(loss, -logprobs[mask].sum(), rtol=1e-5)
    assert sft_loss(logprobs, SimpleNamespace(loss_mask=mask & False)) == 0


def test_token_logprobs_in_chunks_equal_the_full_ones():
    """Values and gradients; the last chunk is not full."""
    batch = samples.batch(range(3))
    suppressed = tiny.suppressed(20)
    weights = np.random.default_rng(1).normal(size=batch.tokens.shape) * batch.loss_mask

    def run(params, chunk, rule):
        model = nnx.merge(tiny.graphdef(), params)
        logprobs, entropy = token_logprobs(
            model, batch, suppressed=rule, temperature=0.8 if rule is not None else 1.0, chunk=chunk
        )
        return (logprobs * weights).sum(), (logprobs, entropy)

    def both(rule):
        calls = [jax.jit(jax.value_and_grad(lambda p, c=c: run(p, c, rule), has_aux=True)) for c in (17, 512)]
        return [call(tiny.params()) for call in calls]

    ((_, (logprobs, entropy)), gradient), ((_, full), full_gradient) = both(suppressed)
    allowed = ~suppressed[batch.tokens]
    assert not np.asarray(logprobs)[:, 0].any() and logprobs.shape == batch.tokens.shape
    np.testing.assert_allclose(np.asarray(logprobs)[allowed], np.asarray(full[0])[allowed], atol=1e-5)
    np.testing.assert_allclose(entropy, full[1], atol=1e-5)
    assert (np.asarray(entropy) >= -1e-6).all() and np.asarray(entropy).max() <= np.log((~suppressed).sum())
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(full_gradient))
    for a, b in zip(*map(jax.tree.leaves, (gradient, full_gradient)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * scale)


@pytest.mark.parametrize(("module", "least"), [(losses, 4), (advantage_functions, 2)])
def test_examples_in_the_docstrings(module, least):
    result = doctest.testmod(module)
    assert result.failed == 0 and result.attempted >= least
