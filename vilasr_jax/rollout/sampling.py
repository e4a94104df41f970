"""Sampling the next token, row by row."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Key

from vilasr_jax.config import SamplingSection
from vilasr_jax.processing import Tokenizer

Suppressed = Bool[Array, " v"] | Bool[np.ndarray, " v"]  # True for tokens that may not be written
NEVER = -1e30  # a logit that no token is sampled at


def suppressed_tokens(tokenizer: Tokenizer, vocab_size: int) -> Bool[np.ndarray, " v"]:
    """True for what a model may NOT write: padding, special tokens but a turn's end."""
    mask = np.zeros(vocab_size, bool)
    mask[tokenizer.suppressed_ids] = True
    mask[tokenizer.vocab_size :] = True
    mask[[tokenizer.special.im_end, tokenizer.special.endoftext]] = False
    return mask


def allowed_logits(
    logits: Float[Array, "*rows v"], suppressed: Suppressed, temperature: float
) -> Float[Array, "*rows v"]:
    """The logits a policy samples from: special tokens a model may not write are ruled out.

    Used alike by the rollout and by the training forward, so that both have the same distribution.

    Args:
      logits: [..., v] float32.
      suppressed: [v] bool, True for tokens that may not be written.
      temperature: divides the logits; 0 (greedy) counts as 1.
    """
    return jnp.where(suppressed, NEVER, logits / (temperature or 1.0))


def sample(
    logits: Float[Array, "b v"],
    keys: Key[Array, " b"],
    suppressed: Suppressed,
    sampling: SamplingSection,
    own: tuple[Float[Array, " b"], Float[Array, " b"]] | None = None,
) -> tuple[Int32[Array, " b"], Float[Array, " b"]]:
    """Samples one token per row.

    Args:
      logits: [b, v] float32.
      keys: [b] PRNG keys, one a row, so that a row's token does not depend on its neighbours.
      suppressed: [v] bool.
      sampling: temperature (0: greedy), top_k and top_p (nucleus; Holtzman et al., 2020).
      own: each row's own temperature and top-p, [b] float32 both, instead of `sampling`'s.

    Returns:
      tokens [b] int32, and their log-probabilities [b] float32 under softmax(logits / temperature) over the
      tokens a model may write, before top-k and top-p cut anything (what the policy gradient needs).
    """
    if own is None:
        logits = allowed_logits(logits, suppressed, sampling.temperature)
        if sampling.temperature == 0:
            tokens = jnp.argmax(logits, axis=-1)
        else:
            tokens = _draw(logits, keys, sampling.top_k, sampling.top_p if sampling.top_p < 1 else None)
    else:
        temperature, top_p = (value[:, None] for value in own)
        logits = allowed_logits(logits / jnp.where(temperature > 0, temperature, 1), suppressed, 1.0)
        tokens = _draw(logits, keys, sampling.top_k, top_p)
        tokens = jnp.where(own[0] > 0, tokens, jnp.argmax(logits, axis=-1))
    logprobs = jax.nn.log_softmax(logits, axis=-1)
    tokens = tokens.astype(jnp.int32)
    return tokens, jnp.take_along_axis(logprobs, tokens[:, None], axis=-1)[:, 0]


def _draw(
    logits: Float[Array, "b v"], keys: Key[Array, " b"], top_k: int, top_p: float | Float[Array, "b 1"] | None
) -> Int32[Array, " b"]:
    """Draws a token per row at random, of the `top_k` likeliest (0: all) and their nucleus (None: all)."""
    if top_k:
        kth = jax.lax.top_k(logits, min(top_k, logits.shape[-1]))[0][:, -1:]
        logits = jnp.where(logits < kth, NEVER, logits)
    if top_p is not None:
        logits = jnp.where(_nucleus(jax.nn.softmax(logits, axis=-1), top_p), logits, NEVER)
    return jax.vmap(jax.random.categorical)(keys, logits)


def _nucleus(probs: Float[Array, "b v"], top_p: float | Float[Array, "b 1"]) -> Bool[Array, "b v"]:
    """[b, v] bool: the fewest likeliest tokens with a mass of at least `top_p`, and what ties with the last.

    Non-negative floats are ordered as their bits are, so the threshold is found by halving
    the range of its 31 bits; that is exact, and far cheaper than sorting a vocabulary.
    """
    bits = jax.lax.bitcast_convert_type(probs, jnp.int32)

    def halve(_, bounds):
        low, high = bounds
        middle = low + (high - low) // 2
        enough = jnp.where(bits >= middle, probs, 0).sum(axis=-1, keepdims=True) >= top_p
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    low = jnp.zeros((*probs.shape[:-1], 1), jnp.int32)
    low, _ = jax.lax.fori_loop(0, 31, halve, (low, jnp.full_like(low, 0x7F800000)))
    return bits >= low
