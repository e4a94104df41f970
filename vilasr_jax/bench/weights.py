"""Forms of the weights compared with float32: errors of logits, and how often the greedy token is the same.

A model in float32 holds conversations greedily. Each form then reads the same tokens and images, and its
logits before each sampled token are compared.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from PIL import Image

from vilasr_jax.config import MeshSection
from vilasr_jax.parallel import make_mesh
from vilasr_jax.processing import Buckets, Encoded, collate, patch_counts
from vilasr_jax.rollout import Trajectory
from vilasr_jax.rollout.sampling_weights import SamplingLayout
from vilasr_jax.sampler import Sampler
from vilasr_jax.trained_model import TrainedModel, open_model

FORMS = ("bf16", "int8")


class Difference(NamedTuple):
    """Logits of a form against those of float32, at all sampled tokens."""

    rms: float  # root of the mean square of the differences, over the standard deviation of the logits
    largest: float  # the largest difference, over the same
    same_token: float  # fraction of the tokens at which the largest logit is the same
    tokens: int


def bench_weights(checkpoint: str, rows: int = 8, max_tokens: int = 0) -> dict[str, Any]:
    """Compares the forms on a model's own questions, or on one about a picture of noise; prints a table.

    Args:
      checkpoint: of any kind, see `open_checkpoint`.
      rows: questions.
      max_tokens: of a conversation; 0: as the model's settings say.

    Raises:
      CheckpointError: `checkpoint` isn't a model.
    """
    sampler = Sampler(checkpoint, weights="f32", max_tokens=max_tokens)
    questions = sampler.rows("test", rows)
    if questions:
        conversations = sampler.sample_rows(questions)
    else:
        noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
        conversations = sampler.sample(Image.fromarray(noise), "What is left of the door?")
    del sampler
    model = open_model(checkpoint, "f32")
    exact, suppressed = logits_of(model, conversations), model.suppressed
    found = {}
    print(f"{'weights':10}{'rms error':>12}{'largest':>10}{'same greedy token':>20}{'tokens':>8}")
    for form in FORMS:
        found[form] = difference(logits_of(open_model(checkpoint, form), conversations), exact, suppressed)
        rms, largest, same, tokens = found[form]
        print(f"{form:10}{rms:12.4f}{largest:10.4f}{same:20.2%}{tokens:8}")
    print("errors of logits are in standard deviations of the float32 logits")
    return {form: one._asdict() for form, one in found.items()}


def difference(logits: np.ndarray, exact: np.ndarray, suppressed: np.ndarray) -> Difference:
    """Compares logits [tokens, vocabulary]; no greedy token is one of the `suppressed` ([vocabulary] bool).

    >>> one, other = np.array([[0.0, 2.0], [1.0, 1.5]]), np.array([[0.0, 2.0], [2.0, 1.5]])
    >>> difference(one, other, np.zeros(2, bool)).same_token
    0.5
    """
    error, spread = logits - exact, float(exact.std())
    best, wanted = (np.where(suppressed, -np.inf, values).argmax(axis=-1) for values in (logits, exact))
    same = best == wanted
    rms, largest = float(np.sqrt(np.square(error).mean())), float(np.abs(error).max())
    return Difference(rms / spread, largest / spread, float(same.mean()), len(same))


def logits_of(model: TrainedModel, conversations: list[Trajectory]) -> np.ndarray:
    """Float32 logits [tokens, vocabulary] from which the sampled tokens of the conversations were drawn."""
    mesh = make_mesh(MeshSection(), jax.local_devices()[:1])
    layout = SamplingLayout(model.config, mesh, weights=model.job.engine.weights)
    net = nnx.merge(model.graphdef, layout.packed(model.params))
    found = []
    for one in conversations:
        example = Encoded(one.tokens, one.loss_mask, one.images_in_tokens, model.tokenizer.special)
        patches = max(patch_counts(example.grids))
        sizes = Buckets((len(one.tokens),), (len(one.images_in_tokens),), (patches,), model.images)
        batch = collate([example], buckets=sizes)
        hidden = net(batch.tokens, batch.positions, batch.segment_ids, batch.image_index, batch.vision)
        before = np.flatnonzero(one.loss_mask) - 1
        found.append(np.asarray(net.logits(hidden[:, before])[0], np.float32))
    return np.concatenate(found)
