"""Per-token log-probabilities, and the losses built on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vilasr_jax.models.qwen2_5_vl import Qwen2_5_VL
from vilasr_jax.processing import Batch
from vilasr_jax.rollout import allowed_logits

# What grpo_loss counts, over tokens.
POLICY_LOSSES = ("trajectory_mean", "token_mean", "gspo")
GRPO_SUMS = ("clipped_high", "clipped_low", "dual_clipped", "kl", "tokens")


def map_head(
    model: Qwen2_5_VL, batch: Batch, figures: Callable[[jax.Array, jax.Array], Any], chunk: int = 512
) -> Any:
    """Figures of every token's predicted distribution.

    The sequence goes through the output head `chunk` tokens at a time, and each chunk's logits are computed
    again in the backward pass, so that [tokens, vocabulary] logits never exist at once.

    Args:
      model: the model.
      batch: b conversations of t tokens.
      figures: (logits [b, c, v], the tokens that really come [b, c]) to a tree of arrays [b, c, ...].
      chunk: tokens of a conversation at a time.

    Returns:
      that tree, its arrays [b, t, ...]; column i speaks of token i, column 0 is 0.
    """
    hidden = model(batch.tokens, batch.positions, batch.segment_ids, batch.image_index, batch.vision)
    hidden, targets = hidden[:, :-1], batch.tokens[:, 1:]
    t = targets.shape[1]
    chunks = -(-t // chunk)

    @jax.checkpoint
    def head(args: tuple[jax.Array, jax.Array]) -> Any:
        part, ids = args
        return figures(model.logits(part), ids)

    if chunks == 1:
        outputs = head((hidden, targets))
    else:
        pad = chunks * chunk - t

        def split(x: jax.Array) -> jax.Array:  # [b, t, ...] -> [chunks, b, chunk, ...]
            x = jnp.pad(x, [(0, 0), (0, pad)] + [(0, 0)] * (x.ndim - 2))
            return jnp.moveaxis(x.reshape(x.shape[0], chunks, chunk, *x.shape[2:]), 1, 0)

        def whole(x: jax.Array) -> jax.Array:  # and back, without the padding
            x = jnp.moveaxis(x, 0, 1)
            return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :t]

        outputs = jax.tree.map(whole, jax.lax.map(head, (split(hidden), split(targets))))
    return jax.tree.map(lambda x: jnp.pad(x, [(0, 0), (1, 0)] + [(0, 0)] * (x.ndim - 2)), outputs)


def token_logprob(logits: jax.Array, ids: jax.Array) -> jax.Array:
    """Log-probability [b, c] of the tokens `ids` [b, c] under `logits` [b, c, v]."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), ids[..., None], axis=-1)[..., 0]


def token_logprobs(
    model: Qwen2_5_VL,
    batch: Batch,
    *,
    suppressed: jax.Array | None = None,
    temperature: float = 1.0,
    chunk: int = 512,
) -> tuple[jax.Array, jax.Array]:
    """Log-probability of every token given those before it, and the entropy of its distribution.

    Args:
      model: the model.
      batch: b conversations of t tokens.
      suppressed: [v] bool, tokens that may not be written; as the rollout's, when its log-probabilities are
        compared.
      temperature: as the rollout's.
      chunk: see `map_head`.

    Returns:
      logprobs [b, t] float32 and entropy [b, t] float32; column i speaks of token i, column 0 is 0.
    """

    def figures(logits: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        if suppressed is not None:
            logits = allowed_logits(logits, suppressed, temperature)
        logprobs = jax.nn.log_softmax(logits, axis=-1)
        entropy = -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1)
        return jnp.take_along_axis(logprobs, ids[..., None], axis=-1)[..., 0], entropy

    return map_head(model, batch, figures, chunk)


def sft_loss(logprobs: jax.Array, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean negative log-likelihood of the assistant's tokens, <|im_end|> included.

    Args:
      logprobs: [b, t] from `token_logprobs`.
      batch: its `loss_mask` [b, t] says which tokens count.

    Returns:
      the loss, and {"tokens": how many counted}.

    >>> import numpy as np
    >>> from types import SimpleNamespace
    >>> mask = np.array([[False, True, True, False]])
    >>> loss, _ = sft_loss(np.array([[0.0, -1.0, -3.0, -9.0]]), SimpleNamespace(loss_mask=mask))
    >>> float(loss)
    2.0
    """
    mask = jnp.asarray(batch.loss_mask, jnp.float32)
    tokens = mask.sum()
    return -(logprobs * mask).sum() / jnp.maximum(tokens, 1), {"tokens": tokens}


def grpo_loss(
    logprobs: jax.Array,
    old_logprobs: jax.Array,
    advantages: jax.Array,
    mask: jax.Array,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float,
    kind: str = "trajectory_mean",
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The clipped policy-gradient loss of each trajectory.

    With ratio r = exp(logprob - old logprob) and advantage A, a token's loss is
    max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)); for A < 0 it is at most -A * dual_clip
    (dual clipping, arXiv 1912.09729; asymmetric clipping, arXiv 2503.14476). `kind` says how tokens make
    a trajectory's loss:

    - "trajectory_mean": the mean over its own sampled tokens (GRPO, arXiv 2402.03300);
    - "token_mean": their sum; the caller divides by the update's sampled tokens (DAPO, arXiv 2503.14476);
    - "gspo": as the first, with one ratio for the whole trajectory, exp(mean of log r), whose gradient flows
      through every token (GSPO, arXiv 2507.18071).

    Args:
      logprobs, old_logprobs: [b, t], under the trained and the sampling policy.
      advantages: [b, t], a trajectory's own at each of its tokens.
      mask: [b, t] bool, the sampled tokens.

    Returns:
      loss [b], and sums over the batch: "clipped_high", "clipped_low", "dual_clipped" (tokens), "kl" (the k3
      estimate of KL(old || new), arXiv 2005.00341's control variate) and "tokens".

    >>> import numpy as np
    >>> zero, mask = np.zeros((1, 2)), np.array([[False, True]])
    >>> loss, _ = grpo_loss(zero, zero, zero + 2, mask, clip_low=0.2, clip_high=0.3, dual_clip=3.0)
    >>> loss.tolist()
    [-2.0]
    """
    mask = jnp.asarray(mask, jnp.float32)
    log_ratio = (logprobs - old_logprobs) * mask
    count = jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
    if kind == "gspo":
        log_ratio = mask * log_ratio.sum(axis=1, keepdims=True) / count
    ratio = jnp.exp(log_ratio)
    a = advantages
    plain = -a * ratio
    clipped = -a * jnp.clip(ratio, 1 - clip_low, 1 + clip_high)
    token_loss = jnp.maximum(plain, clipped)
    bound = -a * dual_clip
    token_loss = jnp.where((a < 0) & (dual_clip > 0), jnp.minimum(token_loss, bound), token_loss)
    loss = (token_loss * mask).sum(axis=1)
    if kind != "token_mean":
        loss = loss / count[:, 0]
    sums = {
        "clipped_high": ((a > 0) & (ratio > 1 + clip_high)) * mask,
        "clipped_low": ((a < 0) & (ratio < 1 - clip_low)) * mask,
        "dual_clipped": ((a < 0) & (ratio > dual_clip)) * mask,
        "kl": (ratio - 1 - log_ratio) * mask,
        "tokens": mask,
    }
    return loss, {name: value.sum() for name, value in sums.items()}
