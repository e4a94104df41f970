"""GRPO against a plain reading of its equations, and on a problem whose answer is known."""

import itertools
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import tiny
from vilasr_jax.config import OptimizerSection, RLSection, SamplingSection
from vilasr_jax.config.training import POLICY_LOSSES
from vilasr_jax.models.qwen2_5_vl import Qwen2_5_VL
from vilasr_jax.processing import empty_batch
from vilasr_jax.training.advantages import ADVANTAGES, group_advantages
from vilasr_jax.training.groups import overlong_penalty
from vilasr_jax.training.losses import grpo_loss, importance_weights
from vilasr_jax.training.optimizers import make_optimizer
from vilasr_jax.training.state import init_state
from vilasr_jax.training.steps import make_grpo_steps, make_logprobs

LOW, HIGH, DUAL, CAP, BETA, ETA = 0.2, 0.3, 3.0, 1.5, 0.3, 0.05


def trajectories(seed: int = 0):
    """Two rows of packed trajectories; float64."""
    rng = np.random.default_rng(seed)
    segments = np.array([[1] * 5 + [2] * 4 + [3] * 6 + [0] * 2, [1] * 9 + [2] * 8])
    shape = segments.shape
    mask = (rng.random(shape) < 0.6) & (segments > 0)
    new = -rng.exponential(1, shape)
    old = new + rng.normal(0, 0.5, shape)
    rollout = old + rng.normal(0, 0.3, shape)
    reference = new + rng.normal(0, 0.4, shape)
    values = rng.normal(size=(2, 4))
    advantages = np.take_along_axis(values, segments, axis=1) * (segments > 0)
    return dict(
        segments=segments,
        mask=mask,
        new=new,
        old=old,
        rollout=rollout,
        reference=reference,
        advantages=advantages,
        entropy=rng.exponential(1, shape),
    )


def by_hand(case, kind, *, importance, kl, entropy):
    """The loss of all rows, written out token by token."""
    total = 0.0
    for row in range(len(case["mask"])):
        for segment in sorted(set(case["segments"][row]) - {0}):
            tokens = [i for i in np.flatnonzero(case["segments"][row] == segment) if case["mask"][row, i]]
            if not tokens:
                continue
            logs = [case["new"][row, i] - case["old"][row, i] for i in tokens]
            if kind == "gspo":
                logs = [sum(logs) / len(logs)] * len(logs)
            losses = []
            for i, log in zip(tokens, logs, strict=True):
                ratio, a = np.exp(log), case["advantages"][row, i]
                surrogate = min(ratio * a, min(max(ratio, 1 - LOW), 1 + HIGH) * a)
                if a < 0:
                    surrogate = max(surrogate, DUAL * a)
                loss = -surrogate
                if importance:
                    loss *= min(np.exp(case["old"][row, i] - case["rollout"][row, i]), CAP)
                if kl:
                    away = case["reference"][row, i] - case["new"][row, i]
                    loss += BETA * (np.exp(away) - away - 1)
                if entropy:
                    loss -= ETA * case["entropy"][row, i]
                losses.append(loss)
            total += sum(losses) if kind == "token_mean" else sum(losses) / len(losses)
    return total


def ours(case, kind, *, importance, kl, entropy):
    def loss(new, ent):
        weights = importance_weights(case["old"], case["rollout"], case["mask"], CAP) if importance else None
        value, _ = grpo_loss(
            new,
            case["old"],
            case["advantages"],
            case["mask"],
            clip_low=LOW,
            clip_high=HIGH,
            dual_clip=DUAL,
            kind=kind,
            segment_ids=case["segments"],
            weights=weights,
            ref_logprobs=case["reference"],
            kl_weight=BETA * kl,
            entropy=ent,
            entropy_weight=ETA * entropy,
        )
        return value.sum()

    return jax.value_and_grad(loss, (0, 1))(case["new"], case["entropy"])


@pytest.mark.parametrize("kind", POLICY_LOSSES)
def test_loss_and_gradient_equal_the_equations(kind):
    switches = [
        dict(zip(("importance", "kl", "entropy"), on, strict=True))
        for on in itertools.product([0, 1], repeat=3)
    ]
    with jax.enable_x64(True):
        for seed, options in enumerate(switches):
            case = trajectories(seed)
            value, gradients = ours(case, kind, **options)
            np.testing.assert_allclose(value, by_hand(case, kind, **options), atol=1e-6, rtol=1e-6)
            for name, gradient in zip(("new", "entropy"), gradients, strict=True):
                for at in np.ndindex(case[name].shape):
                    sides = []
                    for step in (1e-6, -1e-6):
                        nudged = {**case, name: case[name].copy()}
                        nudged[name][at] += step
                        sides.append(by_hand(nudged, kind, **options))
                    np.testing.assert_allclose(gradient[at], (sides[0] - sides[1]) / 2e-6, atol=1e-6)


def test_advantages_equal_their_definitions():
    rewards = np.random.default_rng(0).random((5, 4))
    for name in ADVANTAGES:
        got = group_advantages(rewards.reshape(-1), 4, name).reshape(5, 4)
        for row, mine in zip(rewards, got, strict=True):
            for i, reward in enumerate(row):
                others = [other for j, other in enumerate(row) if j != i]
                want = {
                    "grpo": (reward - row.mean()) / (row.std(ddof=1) + 1e-6),
                    "dr_grpo": reward - row.mean(),
                    "rloo": reward - np.mean(others),
                }[name]
                np.testing.assert_allclose(mine[i], want, atol=1e-6)


def test_soft_overlong_penalty():
    section = RLSection(sampling=SamplingSection(max_tokens=100), overlong_buffer=40, overlong_penalty=0.5)
    got = [overlong_penalty(n, section) for n in (10, 60, 70, 80, 100, 130)]
    np.testing.assert_allclose(got, [0, 0, 0.125, 0.25, 0.5, 0.5])
    assert overlong_penalty(100, RLSection()) == 0


# ------------------------------------------------------------------------------------------------------------
# A conversation of one word, of which only one choice is rewarded
# ------------------------------------------------------------------------------------------------------------


@cache
def bandit_model():
    config = tiny.config().replace(num_layers=1, scan_unroll=1)
    graphdef, params = nnx.split(Qwen2_5_VL(config, rngs=nnx.Rngs(1)))
    return graphdef, params


def conversations(arms) -> tuple:
    """A batch whose row i answers with arm i, and the arms' tokens."""
    tokenizer = tiny.tokenizer()
    words = [tokenizer.encode(letter)[0] for letter in "ab"]
    batch = empty_batch(len(arms), 5, 0, 4, {})._replace(vision=None)
    special = tokenizer.special
    for i, arm in enumerate(arms):
        batch.tokens[i] = [special.im_start, words[0], words[1], words[arm], special.im_end]
    batch.positions[:] = np.arange(5)
    batch.segment_ids[:] = 1
    batch.loss_mask[:, 3:] = True
    return batch


def learn(steps: int = 25, **options) -> float:
    """The probability of the rewarded arm after training."""
    adam = OptimizerSection(learning_rate=0.03, schedule="constant", warmup_fraction=0, clip_norm=0)
    section = RLSection(optimizer=adam, **options)
    graphdef, params = bandit_model()
    params = jax.tree.map(jnp.copy, params)  # the first update donates them
    mesh = tiny.mesh()
    optimizer = make_optimizer(adam, steps)
    state = init_state(params, optimizer, mesh, adam)
    zero, grad, apply = make_grpo_steps(graphdef, optimizer, section, tiny.suppressed(2))
    logprobs = make_logprobs(graphdef, tiny.suppressed(2), 1.0)
    rng = np.random.default_rng(0)
    group, groups = 8, 2

    def chance() -> np.ndarray:
        return np.exp(np.asarray(logprobs(state.all_params, conversations([0, 1] * 8)))[:2, 3])

    reference = np.asarray(logprobs(state.all_params, conversations([0, 1])))
    for _ in range(steps):
        p = chance()[1] / chance().sum()
        arms = (rng.random(group * groups) < p).astype(int)
        batch = conversations(arms)
        current = np.asarray(logprobs(state.all_params, batch))
        advantages = group_advantages(arms.astype(np.float32), group, section.advantage)
        batch.extras["logprobs"] = current + 0.05 * batch.loss_mask  # an engine that rounds a little
        batch.extras["old_logprobs"] = current
        batch.extras["ref_logprobs"] = reference[arms]
        batch.extras["advantages"] = np.repeat(advantages[:, None], 5, 1)
        scale = 1 / (batch.loss_mask.sum() if section.loss == "token_mean" else len(arms))
        state, _ = apply(state, grad(state, zero(state), batch, np.float32(scale)))
    p = chance()
    return float(p[1] / p.sum())


def test_ratios_are_to_the_configured_log_probabilities():
    """old_logprobs="trained": the first update has ratio 1, however far the engine's own rounding is off."""
    adam = OptimizerSection(learning_rate=0.03, schedule="constant", warmup_fraction=0, clip_norm=0)
    graphdef, params = bandit_model()
    optimizer, batch = make_optimizer(adam, 1), conversations([0, 1])
    current = np.asarray(make_logprobs(graphdef, tiny.suppressed(2), 1.0)(params, batch))
    batch.extras["logprobs"] = current - 0.7 * batch.loss_mask
    batch.extras["old_logprobs"] = current
    batch.extras["advantages"] = np.array([[1.0], [-1.0]], np.float32) * batch.loss_mask
    clipped = {}
    for kind in ("rollout", "trained"):
        state = init_state(jax.tree.map(jnp.copy, params), optimizer, tiny.mesh(), adam)
        section = RLSection(optimizer=adam, old_logprobs=kind)
        zero, grad, _ = make_grpo_steps(graphdef, optimizer, section, tiny.suppressed(2))
        sums = grad(state, zero(state), batch, np.float32(0.5))[1]
        clipped[kind] = float(sums["clipped_high"])
        assert float(sums["kl"]) == pytest.approx(0.0 if kind == "trained" else 4 * 0.3137527, abs=1e-4)
    assert clipped == {"rollout": 2, "trained": 0}


@pytest.mark.slow
def test_a_bandit_finds_the_rewarded_arm():
    assert learn() > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("advantage", ADVANTAGES)
@pytest.mark.parametrize("loss", POLICY_LOSSES)
def test_every_variant_finds_the_rewarded_arm(advantage, loss):
    assert learn(advantage=advantage, loss=loss) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        dict(kl_weight=0.01),
        dict(entropy_weight=0.01),
        dict(importance_cap=2.0),
        dict(dual_clip=0.0),
        dict(old_logprobs="trained"),
    ],
)
def test_every_option_finds_the_rewarded_arm(options):
    assert learn(**options) > 0.9
