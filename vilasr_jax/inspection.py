"""Inspection of a model on a conversation: attention weights, and its least certain tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vilasr_jax.processing import Buckets, Encoded, collate, image_grid, patch_counts
from vilasr_jax.rollout import Trajectory
from vilasr_jax.trained_model import TrainedModel


class TokenLogprob(NamedTuple):
    """A sampled token with its log-probability."""

    turn: int  # from 1
    text: str
    logprob: float


def attention_weights(model: TrainedModel, trajectory: Trajectory) -> np.ndarray:
    """Attention of every layer and head over a conversation, [layers, heads, t, t]; rows add up to 1.

    Memory grows with the square of the length: for single conversations.
    """
    tokens, images = trajectory.tokens, trajectory.images_in_tokens
    example = Encoded(tokens, trajectory.loss_mask, images, model.tokenizer.special)
    patches = max(patch_counts(example.grids))
    batch = collate([example], buckets=Buckets((len(tokens),), (len(images),), (patches,), model.images))
    net = nnx.merge(model.graphdef, model.params)
    x = net.embed(batch.tokens, batch.image_index, net.encode_vision(batch.vision))
    causal = np.tril(np.ones((len(tokens), len(tokens)), bool))
    weights_by_layer = []

    def attend(q, k, v):
        k, v = (jnp.repeat(part, q.shape[2] // part.shape[2], axis=2) for part in (k, v))
        scores = jnp.einsum("btnh,bsnh->bnts", q, k).astype(jnp.float32) * q.shape[-1] ** -0.5
        weights = jax.nn.softmax(jnp.where(causal, scores, -jnp.inf), axis=-1)
        weights_by_layer.append(np.asarray(weights[0]))
        return jnp.einsum("bnts,bsnh->btnh", weights.astype(v.dtype), v)

    net.apply_layers(x, batch.positions, attend)
    return np.stack(weights_by_layer)


def attention_maps(model: TrainedModel, trajectory: Trajectory, turn: int) -> list[np.ndarray]:
    """Where the tokens of a turn look: for each image before it, [rows, columns] of merged vision tokens.

    Attention is averaged over layers, heads and the turn's tokens; all maps add up to the fraction
    that goes to images.
    """
    weights = attention_weights(model, trajectory).mean(axis=(0, 1))
    start, end = turn_spans(trajectory)[turn - 1]
    looking = weights[start:end].mean(axis=0)
    pads = np.flatnonzero(trajectory.tokens == model.tokenizer.special.image_pad)
    maps, at = [], 0
    for image in trajectory.images_in_tokens:
        _, *patches = image_grid(image, model.images)
        rows, columns = (side // model.images.merge_size for side in patches)
        size = rows * columns
        places = pads[at : at + size]
        at += size
        if places[-1] < start:
            maps.append(looking[places].reshape(rows, columns))
    return maps


def turn_spans(trajectory: Trajectory) -> list[tuple[int, int]]:
    """First and last + 1 index of each turn's sampled tokens."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], trajectory.loss_mask, [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def token_logprobs(model: TrainedModel, trajectory: Trajectory) -> list[TokenLogprob]:
    """Every sampled token with its log-probability at sampling time."""
    return [
        TokenLogprob(
            turn, model.tokenizer.decode(trajectory.tokens[at : at + 1]), float(trajectory.logprobs[at])
        )
        for turn, (start, end) in enumerate(turn_spans(trajectory), 1)
        for at in range(start, end)
    ]


def least_sure(model: TrainedModel, trajectory: Trajectory, count: int = 5) -> Sequence[TokenLogprob]:
    """The `count` tokens that the model was least sure of."""
    return sorted(token_logprobs(model, trajectory), key=lambda token: token.logprob)[:count]
