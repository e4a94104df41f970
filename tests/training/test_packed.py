"""Packing changes no conversation's log-probabilities, losses or gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import tiny
from tests.training import samples
from vilasr_jax.processing import Budget, collate, collate_packed, pack
from vilasr_jax.training.losses import grpo_loss, sft_loss, token_logprobs

BUDGET = Budget(tokens=130, vision_rows=4, patches=32)
COUNT = 7
SIZES = dict(clip_low=0.2, clip_high=0.3, dual_clip=3.0)
EXTRAS = {"logprobs": samples.old_logprobs, "advantages": samples.advantage}


@pytest.fixture(scope="module")
def both():
    """The same conversations with a row each, and packed; where each is in the packed rows."""
    examples = [
        dataclasses.replace(e, extras={name: value(n, len(e.ids)) for name, value in EXTRAS.items()})
        for n, e in ((n, samples.example(n)) for n in range(COUNT))
    ]
    rows = pack(examples, BUDGET)
    places = {}
    for i, row in enumerate(rows):
        at = 0
        for example in row.examples:
            k = next(n for n, e in enumerate(examples) if e is example)
            places[k] = i, slice(at, at + len(example.ids))
            at += len(example.ids)
    assert len(rows) < COUNT / 2  # several to a row
    return collate(examples, buckets=samples.BUCKETS), collate_packed(rows, BUDGET), places


def weights(mask, segments):
    """1 / a conversation's own sampled tokens, at each of them."""
    out = np.zeros(mask.shape, np.float32)
    for i, row in enumerate(segments):
        for segment in set(row.tolist()) - {0}:
            here = mask[i] & (row == segment)
            out[i][here] = 1 / max(here.sum(), 1)
    return out


def test_logprobs_and_gradients_of_packed_conversations(both):
    alone, packed, places = both

    def run(params, batch):
        logprobs, entropy = token_logprobs(nnx.merge(tiny.graphdef(), params), batch)
        loss = sft_loss(logprobs, batch) / batch.loss_mask.sum()
        spread = (logprobs * weights(batch.loss_mask, batch.segment_ids)).sum() / COUNT
        return loss + spread, (logprobs, entropy)

    ((loss, mine), gradient), ((other, theirs), expected) = (
        jax.jit(jax.value_and_grad(lambda p, b=batch: run(p, b), has_aux=True))(tiny.params())
        for batch in (packed, alone)
    )
    np.testing.assert_allclose(loss, other, rtol=1e-5)
    for k, (i, span) in places.items():
        n = span.stop - span.start
        for own, reference in zip(mine, theirs, strict=True):  # a first token has nothing before it
            np.testing.assert_allclose(own[i, span][1:], reference[k, 1:n], atol=1e-5)
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    for a, b in zip(*map(jax.tree.leaves, (gradient, expected)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * scale)


@pytest.mark.parametrize("kind", ["trajectory_mean", "token_mean", "gspo"])
def test_policy_losses_of_packed_conversations(both, kind):
    alone, packed, places = both
    rng = np.random.default_rng(3)
    new = alone.extras["logprobs"] + rng.normal(0, 0.3, alone.tokens.shape).astype(np.float32)
    moved = np.zeros(packed.tokens.shape, np.float32)
    for k, (i, span) in places.items():
        moved[i, span] = new[k, : span.stop - span.start]

    def total(logprobs, batch):
        loss, sums = grpo_loss(
            logprobs,
            batch.extras["logprobs"],
            batch.extras["advantages"],
            batch.loss_mask,
            segment_ids=batch.segment_ids,
            kind=kind,
            entropy=logprobs**2,
            entropy_weight=0.1,
            kl_weight=0.2,
            ref_logprobs=logprobs * 0.9,
            **SIZES,
        )
        return loss.sum(), sums

    (loss, sums), gradient = jax.value_and_grad(total, has_aux=True)(jnp.asarray(moved), packed)
    (expected, theirs), reference = jax.value_and_grad(total, has_aux=True)(jnp.asarray(new), alone)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    for name, value in theirs.items():
        np.testing.assert_allclose(sums[name], value, rtol=1e-5, err_msg=name)
    for k, (i, span) in places.items():
        np.testing.assert_allclose(gradient[i, span], reference[k, : span.stop - span.start], atol=1e-5)
