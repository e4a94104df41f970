"""Sampling against NumPy."""

import jax
import numpy as np
import pytest

from tests import tiny
from vilasr_jax.config import SamplingSection
from vilasr_jax.rollout.sampling import sample, suppressed_tokens

V = 13
RULED_OUT = np.arange(V) % 5 == 2


def logits(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (rows, V)).astype(np.float32)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kept(p: np.ndarray, section: SamplingSection) -> np.ndarray:
    """Probabilities of one row after top-k and then top-p, the plain way."""
    order = np.argsort(-p)
    p = p.copy()
    if section.top_k:
        p[order[section.top_k :]] = 0
    p /= p.sum()
    if section.top_p < 1:
        before = np.cumsum(p[order]) - p[order]
        p[order[before >= section.top_p]] = 0
    return p / p.sum()


def test_greedy_picks_the_likeliest_allowed():
    x = logits(64)
    section = SamplingSection(temperature=0.0)
    keys = jax.random.split(jax.random.key(0), 64)
    tokens, logprobs = sample(x, keys, RULED_OUT, section)
    allowed = np.where(RULED_OUT, -np.inf, x)
    np.testing.assert_array_equal(tokens, allowed.argmax(-1))
    np.testing.assert_allclose(logprobs, np.log(softmax(allowed).max(-1)), atol=1e-5)


@pytest.mark.parametrize(
    "section",
    [
        SamplingSection(),
        SamplingSection(temperature=0.5),
        SamplingSection(top_k=3),
        SamplingSection(top_p=0.7),
        SamplingSection(temperature=1.7, top_k=6, top_p=0.8),
        SamplingSection(top_k=99, top_p=0.05),
    ],
    ids=str,
)
def test_frequencies(section):
    draws = 20_000
    for seed in range(3):
        x = logits(1, seed)
        keys = jax.random.split(jax.random.key(seed), draws)
        tokens, logprobs = sample(np.repeat(x, draws, 0), keys, RULED_OUT, section)
        full = softmax(np.where(RULED_OUT, -np.inf, x[0] / section.temperature))
        want = kept(full, section)
        counts = np.bincount(np.asarray(tokens), minlength=V) / draws
        assert not counts[want == 0].any()
        np.testing.assert_allclose(counts, want, atol=0.02)
        # the recorded log-probability is that of the policy, before top-k and top-p cut
        np.testing.assert_allclose(logprobs, np.log(full[np.asarray(tokens)]), atol=1e-4)


def test_rows_do_not_depend_on_their_neighbours():
    x, section = logits(9), SamplingSection(top_p=0.9)
    keys = jax.random.split(jax.random.key(5), 9)
    tokens, _ = sample(x, keys, RULED_OUT, section)
    order = np.random.default_rng(0).permutation(9)
    np.testing.assert_array_equal(sample(x[order], keys[order], RULED_OUT, section)[0], tokens[order])


def test_suppressed_tokens():
    tokenizer = tiny.tokenizer()
    special = tokenizer.special
    mask = suppressed_tokens(tokenizer, tokenizer.vocab_size + 7)
    free = [special.im_end, special.endoftext, *tokenizer.encode("look at 12")]
    assert not mask[free].any()
    assert mask[[special.im_start, special.image_pad, special.vision_start, special.video_pad]].all()
    assert mask[tokenizer.vocab_size :].all() and len(mask) == tokenizer.vocab_size + 7


def test_rows_with_settings_of_their_own():
    """A greedy row, a hot one and a narrow one in one batch sample as they would alone."""
    rows, x = [(0.0, 1.0), (1.7, 1.0), (0.6, 0.5)], logits(3)
    keys = jax.random.split(jax.random.key(1), 3)
    own = tuple(np.array(values, np.float32) for values in zip(*rows, strict=True))
    tokens, logprobs = sample(x, keys, RULED_OUT, SamplingSection(), own)
    for i, (temperature, top_p) in enumerate(rows):
        alone = SamplingSection(temperature=temperature, top_p=top_p)
        token, logprob = sample(x[i : i + 1], keys[i : i + 1], RULED_OUT, alone)
        assert tokens[i] == token[0]
        np.testing.assert_allclose(logprobs[i], logprob[0], atol=1e-5)
