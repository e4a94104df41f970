"""Per-token log-probabilities, and the losses built on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vilasr_jax.models import Model
from vilasr_jax.models.sharding import constrain, layout
from vilasr_jax.processing import Batch
from vilasr_jax.rollout.sampling import Suppressed, allowed_logits

HEAD_LOGITS = 512 * 152_064  # logits in memory per conversation: 512 tokens of the published vocabulary
# Names of the sums over tokens that `grpo_loss` returns.
GRPO_SUMS = ("clipped_high", "clipped_low", "dual_clipped", "kl", "ref_kl", "tokens")


def map_head(
    model: Model,
    batch: Batch,
    figures: Callable[[Float[Array, "b c v"], Int[Array, "b c"]], Any],
    chunk: int | None = None,
) -> Any:
    """Figures of every token's predicted distribution.

    The sequence goes through the output head in equal parts of at most `chunk` tokens, and each part's logits
    are computed again in the backward pass, so that a large vocabulary's [tokens, vocabulary] logits never
    exist at once.

    Args:
      model: the model.
      batch: b conversations of t tokens.
      figures: (logits [b, c, v], the tokens that come next [b, c]) to a tree of arrays [b, c, ...].
      chunk: tokens of a conversation at a time; by default as many as give `HEAD_LOGITS` logits.

    Returns:
      that tree, its arrays [b, t, ...]; column i is about token i, column 0 is 0.
    """
    hidden = model(batch.tokens, batch.positions, batch.segment_ids, batch.image_index, batch.vision)
    hidden = constrain(hidden, layout("training").act_btd)  # chunks are cut from unsharded rows
    model.gather_head()
    hidden, targets = hidden[:, :-1], batch.tokens[:, 1:]
    t = targets.shape[1]
    chunk = chunk or max(1, HEAD_LOGITS // model.config.vocab_size)
    chunks = -(-t // chunk)
    chunk = -(-t // chunks)

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

        def joined(x: jax.Array) -> jax.Array:  # the inverse of `split`, without the padding
            x = jnp.moveaxis(x, 0, 1)
            return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :t]

        outputs = jax.tree.map(joined, jax.lax.map(head, (split(hidden), split(jnp.asarray(targets)))))
    return jax.tree.map(lambda x: jnp.pad(x, [(0, 0), (1, 0)] + [(0, 0)] * (x.ndim - 2)), outputs)


def token_logprob(logits: Float[Array, "b c v"], ids: Int[Array, "b c"]) -> Float[Array, "b c"]:
    """Log-probability [b, c] of the tokens `ids` [b, c] under `logits` [b, c, v]."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), ids[..., None], axis=-1)[..., 0]


def token_logprobs(
    model: Model,
    batch: Batch,
    *,
    suppressed: Suppressed | None = None,
    temperature: float = 1.0,
    chunk: int | None = None,
) -> tuple[Float[Array, "b t"], Float[Array, "b t"]]:
    """Log-probability of every token given those before it, and the entropy of its distribution.

    Args:
      model: the model.
      batch: b conversations of t tokens.
      suppressed: [v] bool, tokens that may not be written; as the rollout's, when its log-probabilities are
        compared.
      temperature: as the rollout's.
      chunk: see `map_head`.

    Returns:
      logprobs [b, t] float32 and entropy [b, t] float32; column i is about token i, column 0 is 0.
    """

    def figures(logits: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        if suppressed is not None:
            logits = allowed_logits(logits, suppressed, temperature)
        logprobs = jax.nn.log_softmax(logits, axis=-1)
        entropy = -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1)
        return jnp.take_along_axis(logprobs, ids[..., None], axis=-1)[..., 0], entropy

    return map_head(model, batch, figures, chunk)


def sft_weights(batch: Batch, kind: str = "token_mean") -> Float[Array, "b t"]:
    """How much each token counts in the SFT loss, [b, t]; the loss is the weighted mean.

    Args:
      batch: its `loss_mask` [b, t] marks the assistant's tokens, <|im_end|> included.
      kind: "conversation_mean": all tokens of a conversation count 1, as in the published training, where
        each conversation is a batch of its own; "token_mean": each token counts 1.

    >>> import numpy as np
    >>> from types import SimpleNamespace
    >>> mask, segments = np.array([[0, 1, 0, 1, 1]], bool), np.array([[1, 1, 2, 2, 2]])
    >>> batch = SimpleNamespace(loss_mask=mask, segment_ids=segments)
    >>> sft_weights(batch, "conversation_mean").tolist()
    [[0.0, 1.0, 0.0, 0.5, 0.5]]
    """
    mask = jnp.asarray(batch.loss_mask, jnp.float32)
    if kind == "token_mean":
        return mask
    return mask / jnp.maximum(over_segments(mask, jnp.asarray(batch.segment_ids)), 1)


def sft_loss(logprobs: Float[Array, "b t"], batch: Batch, kind: str = "token_mean") -> Float[Array, ""]:
    """Summed negative log-likelihood of the assistant's tokens, <|im_end|> included.

    Divided by the sum of `sft_weights` over all of a step's rows it is the step's loss: the same however
    conversations are packed into rows, and rows into calls.

    Args:
      logprobs: [b, t] from `token_logprobs`.
      batch: its `loss_mask` [b, t] says which tokens count.
      kind: how much each counts, see `sft_weights`.

    >>> import numpy as np
    >>> from types import SimpleNamespace
    >>> mask = np.array([[False, True, True, False]])
    >>> float(sft_loss(np.array([[0.0, -1.0, -3.0, -9.0]]), SimpleNamespace(loss_mask=mask)))
    4.0
    """
    return -(logprobs * sft_weights(batch, kind)).sum()


def over_segments(values: Float[Array, "b t"], segment_ids: Int[Array, "b t"]) -> Float[Array, "b t"]:
    """[b, t]: at each token, the sum of `values` [b, t] over its own segment (conversation) of the row.

    >>> import numpy as np
    >>> over_segments(np.array([[1.0, 2.0, 5.0, 0.0]]), np.array([[1, 1, 2, 0]])).tolist()
    [[3.0, 3.0, 5.0, 0.0]]
    """

    def row(values, ids):
        return jax.ops.segment_sum(values, ids, num_segments=ids.shape[0] + 1)[ids]

    return jax.vmap(row)(jnp.asarray(values), jnp.asarray(segment_ids))


def grpo_loss(
    logprobs: Float[Array, "b t"],
    old_logprobs: Float[Array, "b t"],
    advantages: Float[Array, "b t"],
    mask: Bool[Array, "b t"],
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float,
    kind: str = "trajectory_mean",
    segment_ids: Int[Array, "b t"] | None = None,
    weights: Float[Array, "b t"] | None = None,
    ref_logprobs: Float[Array, "b t"] | None = None,
    kl_weight: float = 0.0,
    entropy: Float[Array, "b t"] | None = None,
    entropy_weight: float = 0.0,
) -> tuple[Float[Array, " b"], dict[str, Float[Array, ""]]]:
    r"""The clipped policy-gradient loss, summed over the trajectories of each row.

    With ratio r = exp(logprob - old logprob) and advantage A, a token's loss is
    max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)); for A < 0 it is at most -A * dual_clip
    (dual clipping, arXiv 1912.09729; asymmetric clipping, arXiv 2503.14476). It is multiplied by `weights`
    (truncated importance sampling), and

    $$ \beta \, (e^{q - p} - (q - p) - 1) - \eta H $$

    is added, with p the logprob, q the reference policy's (the k3 estimate of KL(trained || reference), as in
    GRPO, arXiv 2402.03300), beta `kl_weight`, H the entropy and eta `entropy_weight`.
    `kind` says how tokens make a trajectory's loss:

    - "trajectory_mean": the mean over its own sampled tokens (GRPO, arXiv 2402.03300);
    - "token_mean": their sum; the caller divides by the update's sampled tokens (DAPO, arXiv 2503.14476);
    - "gspo": as the first, with one ratio for the trajectory, exp(mean of log r), whose gradient flows
      through every token (GSPO, arXiv 2507.18071).

    Args:
      logprobs, old_logprobs: [b, t], under the trained and the sampling policy.
      advantages: [b, t], a trajectory's own at each of its tokens.
      mask: [b, t] bool, the sampled tokens.
      segment_ids: [b, t], which trajectory of the row a token belongs to; None: each row is one.
      weights: [b, t], or None for 1.
      ref_logprobs: [b, t], where `kl_weight` is not 0.
      entropy: [b, t] of the trained policy, where `entropy_weight` is not 0.

    Returns:
      loss [b], and sums over the batch's tokens: "clipped_high", "clipped_low", "dual_clipped", "kl" (the k3
      estimate of KL(old || new)), "ref_kl" and "tokens".

    >>> import numpy as np
    >>> zero, mask = np.zeros((1, 2)), np.array([[False, True]])
    >>> loss, _ = grpo_loss(zero, zero, zero + 2, mask, clip_low=0.2, clip_high=0.3, dual_clip=3.0)
    >>> loss.tolist()
    [-2.0]
    """
    mask = jnp.asarray(mask, jnp.float32)
    segment_ids = jnp.ones(mask.shape, jnp.int32) if segment_ids is None else segment_ids
    count = jnp.maximum(over_segments(mask, segment_ids), 1)
    log_ratio = (logprobs - old_logprobs) * mask
    if kind == "gspo":
        log_ratio = mask * over_segments(log_ratio, segment_ids) / count
    ratio = jnp.exp(log_ratio)
    a = advantages
    plain = -a * ratio
    clipped = -a * jnp.clip(ratio, 1 - clip_low, 1 + clip_high)
    token_loss = jnp.maximum(plain, clipped)
    bound = -a * dual_clip
    token_loss = jnp.where((a < 0) & (dual_clip > 0), jnp.minimum(token_loss, bound), token_loss)
    if weights is not None:
        token_loss *= weights
    ref_kl = jnp.zeros(())
    if kl_weight:
        assert ref_logprobs is not None, "kl_weight needs ref_logprobs"
        away = (ref_logprobs - logprobs) * mask
        ref_kl = jnp.exp(away) - away - 1
        token_loss += kl_weight * ref_kl
    if entropy_weight:
        assert entropy is not None, "entropy_weight needs entropy"
        token_loss -= entropy_weight * entropy
    weight = mask if kind == "token_mean" else mask / count
    sums = {
        "clipped_high": ((a > 0) & (ratio > 1 + clip_high)) * mask,
        "clipped_low": ((a < 0) & (ratio < 1 - clip_low)) * mask,
        "dual_clipped": ((a < 0) & (ratio > dual_clip)) * mask,
        "kl": (ratio - 1 - log_ratio) * mask,
        "ref_kl": ref_kl * mask,
        "tokens": mask,
    }
    return (token_loss * weight).sum(axis=1), {name: value.sum() for name, value in sums.items()}


def importance_weights(
    old_logprobs: Float[Array, "b t"],
    rollout_logprobs: Float[Array, "b t"],
    mask: Bool[Array, "b t"],
    cap: float,
) -> Float[Array, "b t"]:
    """min(exp(old - rollout), cap) [b, t], 1 outside `mask`: truncated importance sampling.

    The engine that samples and the training forward differ a little in their arithmetic; this corrects the
    gradient for it, with a bounded variance (Ionides 2008; for language models: Yao et al., "Your efficient
    RL framework secretly brings you off-policy RL training", 2025).
    """
    ratio = jnp.exp(jnp.where(mask, old_logprobs - rollout_logprobs, 0.0))
    return jax.lax.stop_gradient(jnp.minimum(ratio, cap))
