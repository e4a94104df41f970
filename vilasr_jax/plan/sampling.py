"""What `solve`, `serve` and `Sampler` run on one host: their engine's account and its largest calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from vilasr_jax.config import WEIGHTS, JobConfig, with_weights
from vilasr_jax.conversation_settings import read_exported_settings
from vilasr_jax.models import family_of, preset
from vilasr_jax.models.params import abstract, output_head
from vilasr_jax.parallel import batch_axis, sampling_mesh
from vilasr_jax.parallel.memory import Account, local_bytes
from vilasr_jax.plan.steps import Step
from vilasr_jax.processing import train_tiny_tokenizer
from vilasr_jax.rollout import Engine
from vilasr_jax.rollout.batch import NewTokens, empty_tokens, shapes
from vilasr_jax.rollout.lane import Lane
from vilasr_jax.rollout.memory import rollout_account
from vilasr_jax.sampler import open_engine
from vilasr_jax.trained_model import TrainedModel


class SamplingSteps:
    """The calls of a sampler's engine with published weights, without values.

    Args:
      job: the size (`model.preset`) and the form of the weights (`engine.weights`, or `model.dtype`); the
        rest is as for a Hugging Face folder.
      devices: of one host; they need not be there.
      slots: the most conversations at once.
      layers: number of decoder layers; 0: as in the preset.
    """

    def __init__(self, job: JobConfig, devices: Sequence[Any], slots: int, layers: int = 0):
        settings, prompts = read_exported_settings(epath.Path(job.model.preset) / "published")
        form = next((name for name, dtype in WEIGHTS.items() if dtype == job.model.dtype), "bf16")
        settings = with_weights(settings, job.engine.weights or form)
        fields = {"num_layers": layers} if layers else {}
        config = preset(job.model.preset, dtype=settings.model.dtype, param_dtype="bfloat16", **fields)
        tokenizer = train_tiny_tokenizer([prompts.system], [], 600, family_of(config))
        model = TrainedModel(settings, config, tokenizer, prompts, None)
        mesh = sampling_mesh(config, slots, devices)
        self.engine: Engine = open_engine(model, slots=slots, images=1, mesh=mesh)
        self.config, self.mesh, self.params = config, mesh, abstract(config)[1]

    def account(self, limit: int) -> Account:
        """The account that a sampler prints and checks before it reads a weight."""
        engine = self.engine
        return rollout_account(engine.steps, engine.layout, engine.engine, self.params, limit)

    def build(self, name: str) -> Step:
        """The largest call of "prefill", "insert" or "decode"."""
        engine = self.engine
        params = engine.layout.abstract(self.params)
        state = engine.steps.abstract_state(engine.lane_slots, engine.sampling.max_tokens)
        key = jax.eval_shape(lambda: jax.random.key(0))
        if name == "prefill":
            new = self._new_tokens(engine.prompt_shapes()[-1])
            return Step(name, engine.steps.prefill, (params, new), ("params", "prompts"), 0.0, 0)
        if name == "insert":
            shape = list(shapes(engine.row_buckets, engine.insert_buckets))[-1]
            none: list[list[int]] = [[] for _ in range(engine.shards)]
            starts = engine.writer.turn_starts(Lane(state), none, shape.rows, none)
            rows = jax.tree.map(lambda x: self._placed(x, 0), starts)
            arguments = (params, state, key, self._new_tokens(shape), rows)
            parts = ("params", "cache", "key", "turns", "rows")
            return Step(name, engine.steps.insert, arguments, parts, 0.0, 0)
        steps, head = engine.steps.decode_steps, output_head(params.rest, self.config)
        return Step(
            name,
            engine.steps.decode,
            (params, state, key),
            ("params", "cache", "key"),
            0.0,
            0,
            executions=steps,
            reads=steps * local_bytes((params.layers, head, state.cache)),
        )

    def _new_tokens(self, shape: Any) -> NewTokens:
        engine = self.engine
        new: Any = empty_tokens(shape, engine.shards, engine.prompt_buckets.spec)
        placed = jax.tree.map(lambda x: self._placed(x, 0), new._replace(positions=None))
        return placed._replace(positions=self._placed(new.positions, 1))

    def _placed(self, x: np.ndarray, axis: int) -> jax.ShapeDtypeStruct:
        """The shape of an array that the host gives, its rows in their places."""
        place = batch_axis(self.mesh, axis) if x.ndim > axis else NamedSharding(self.mesh, P())
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
