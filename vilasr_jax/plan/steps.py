"""A job's compiled steps with abstract arguments: the functions that a run calls, without values.

The job's stages determine the steps; their shapes are the largest buckets, or the packed rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vilasr_jax.config import JobConfig
from vilasr_jax.errors import ConfigError
from vilasr_jax.models import ModelConfig, VisionInput, family_of, preset
from vilasr_jax.models.params import abstract, output_head
from vilasr_jax.models.sharding import param_shardings
from vilasr_jax.parallel import batch_axis
from vilasr_jax.parallel.memory import local_bytes, with_shardings
from vilasr_jax.processing import Batch
from vilasr_jax.rollout.batch import NewTokens
from vilasr_jax.rollout.compiled_steps import CompiledSteps, TurnStarts
from vilasr_jax.rollout.memory import shard_slots
from vilasr_jax.rollout.sampling_weights import SamplingLayout
from vilasr_jax.training.batching import batch_shapes
from vilasr_jax.training.flops import training_factor
from vilasr_jax.training.optimizers import make_optimizer
from vilasr_jax.training.state import new_state, state_shardings
from vilasr_jax.training.steps import make_grpo_steps, make_logprobs, make_sft_step, needs_old_logprobs


@dataclasses.dataclass(frozen=True)
class Step:
    """One function to compile.

    `parts` names the arguments, in order, for the table of what fills the memory. A sample of a training step
    is a row, packed or not.
    """

    name: str
    function: Any  # jitted
    arguments: tuple[Any, ...]
    parts: tuple[str, ...]
    flops: float  # model FLOPs of one execution
    samples: float  # that one execution advances; 0: not counted
    executions: int = 1  # iterations that the time is divided by: a decode call's tokens
    reads: float = 0.0  # bytes of one device's memory that all executions read; 0: not counted


def model_config(job: JobConfig, layers: int = 0) -> ModelConfig:
    """The job's model, with fewer layers where `layers` says so."""
    fields: dict[str, Any] = dict(
        dtype=job.model.dtype,
        param_dtype=job.model.param_dtype,
        remat=job.model.remat,
        attention=job.model.attention,
        context_parallel=job.mesh.context_parallel,
    )
    if layers:
        fields["num_layers"] = layers
    return preset(job.model.preset, **fields)


class Steps:
    """Builds the steps of a job on a mesh.

    Args:
      job: the configuration; `model.init_from` is not read, the preset gives the sizes.
      mesh: from `parallel.make_mesh`, over devices that need not be there.
      layers: number of decoder layers; 0: as in the preset.

    Raises:
      ConfigError: batches that the mesh does not divide.
    """

    def __init__(self, job: JobConfig, mesh: Mesh, layers: int = 0):
        self.job, self.mesh = job, mesh
        self.config = model_config(job, layers)
        self.family = family_of(self.config)
        self.graphdef, params = abstract(self.config)
        self.params = with_shardings(params, param_shardings(params, mesh))
        self.shards = mesh.shape["data"] * mesh.shape["fsdp"]

    def build(self, name: str) -> Step:
        """The step called `name` (see `run.step_names`)."""
        return getattr(self, f"_{name}")()

    # --------------------------------------------------------------------------------------------------------
    # training
    # --------------------------------------------------------------------------------------------------------

    def _sft(self) -> Step:
        section = self.job.cold_start if "cold_start" in self.job.stages else self.job.reflect
        optimizer = make_optimizer(section.optimizer, section.steps)
        step = make_sft_step(
            self.graphdef,
            optimizer,
            mesh=self.mesh,
            accumulate=section.accumulate,
            spike=section.optimizer.spike,
            loss=section.loss,
        )
        state, batch = self._state(section.optimizer), self._batch(section.batch)
        return Step(
            "sft",
            step,
            (state, batch),
            ("state", "batch"),
            self._training_flops(section.batch, section.optimizer),
            section.batch,
        )

    def _grpo(self) -> tuple[tuple[Callable, ...], Any, Any]:
        section = self.job.rl
        optimizer = make_optimizer(section.optimizer, section.steps * section.updates)
        calls = make_grpo_steps(self.graphdef, optimizer, section, self._suppressed(), self.mesh)
        state = self._state(section.optimizer)
        total = jax.eval_shape(calls[0], state)
        replicated = NamedSharding(self.mesh, P())
        places = (param_shardings(total[0], self.mesh), jax.tree.map(lambda _: replicated, total[1]))
        return calls, state, with_shardings(total, places)

    def _grpo_grad(self) -> Step:
        section = self.job.rl
        calls, state, total = self._grpo()
        extras = ["logprobs", "advantages"]
        extras += ["old_logprobs"] if needs_old_logprobs(section) else []
        extras += ["ref_logprobs"] if section.kl_weight else []
        batch = self._batch(section.micro_batch, extras)
        weight = jax.ShapeDtypeStruct((), jnp.float32)
        return Step(
            "grpo_grad",
            calls[1],
            (state, total, batch, weight),
            ("state", "gradient", "batch", "weight"),
            self._training_flops(section.micro_batch, section.optimizer),
            section.micro_batch,
        )

    def _grpo_apply(self) -> Step:
        calls, state, total = self._grpo()
        return Step("grpo_apply", calls[2], (state, total), ("state", "gradient"), 0.0, 0)

    def _logprobs(self) -> Step:
        section = self.job.rl
        call = make_logprobs(self.graphdef, self._suppressed(), section.sampling.temperature, self.mesh)
        flops = sum(self._forward_flops(section.micro_batch))
        batch = self._batch(section.micro_batch)
        return Step("logprobs", call, (self.params, batch), ("params", "batch"), flops, section.micro_batch)

    def _vision(self) -> Step:
        rows = self._rows()
        batch = self._batch(rows)

        @jax.jit
        def tower(params, vision):
            with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
                return nnx.merge(self.graphdef, params).encode_vision(vision)

        flops = self._forward_flops(rows)[1]
        return Step("vision", tower, (self.params, batch.vision), ("params", "images"), flops, 0)

    def _rows(self) -> int:
        job = self.job
        return job.rl.micro_batch if "rl" in job.stages else job.cold_start.batch // job.cold_start.accumulate

    def _state(self, section) -> Any:
        optimizer = make_optimizer(section, 100)
        state = jax.eval_shape(lambda params: new_state(params, optimizer, section), self.params)
        return with_shardings(state, state_shardings(state, self.mesh))

    def _lengths(self) -> tuple[int, int, int]:
        """(tokens of a row, its vision rows, patches of a vision row), the largest of a run's batches."""
        shapes = batch_shapes(self.job, self.family.images).largest
        return shapes.tokens[0], shapes.images[0], shapes.patches[0]

    def _batch(self, rows: int, extras: list[str] | tuple[str, ...] = ()) -> Batch:
        if rows % self.shards:
            raise ConfigError(f"{rows} rows aren't a multiple of the mesh's {self.shards} data shards")
        t, n, p = self._lengths()
        return Batch(
            tokens=self._rows_of((rows, t), jnp.int32),
            positions=self._rows_of((3, rows, t), jnp.int32, axis=1),
            segment_ids=self._rows_of((rows, t), jnp.int32),
            image_index=self._rows_of((rows, t), jnp.int32),
            vision=self._images(rows, n, p),
            loss_mask=self._rows_of((rows, t), jnp.bool_),
            extras={name: self._rows_of((rows, t), jnp.float32) for name in extras},
        )

    def _images(self, rows: int, n: int, p: int) -> VisionInput | None:
        if not n:
            return None
        return VisionInput(
            patches=self._rows_of((rows, n, p, self.family.images.patch_dim), jnp.float32),
            pos_hw=self._rows_of((rows, n, p, 2), jnp.int32),
            window_ids=self._rows_of((rows, n, p), jnp.int32),
            image_ids=self._rows_of((rows, n, p), jnp.int32),
        )

    def _rows_of(self, shape: tuple[int, ...], dtype: Any, axis: int = 0) -> Any:
        """A `jax.ShapeDtypeStruct` in the place of an array whose axis `axis` is the rows."""
        return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_axis(self.mesh, axis))

    def _suppressed(self) -> np.ndarray:
        return np.zeros(self.config.vocab_size, bool)

    def _forward_flops(self, rows: int) -> tuple[float, float]:
        """Forward FLOPs of (language model, vision tower)."""
        t, n, p = self._lengths()
        family = self.family
        return family.language_flops(self.config, t, rows), family.vision_flops(self.config, p, rows * n)

    def _training_flops(self, rows: int, section) -> float:
        language, vision = self._forward_flops(rows)
        factors = training_factor(section.freeze, section.lora_rank)
        return factors[0] * language + factors[1] * vision

    # --------------------------------------------------------------------------------------------------------
    # rollout: weights in the compute dtype, split over the model axis alone
    # --------------------------------------------------------------------------------------------------------

    def _rollout(self) -> tuple[CompiledSteps, Any, Any, int]:
        engine, sampling = self.job.engine, self._sampling()
        calls = CompiledSteps(
            self.config,
            self.graphdef,
            sampling=sampling,
            suppressed=self._suppressed(),
            stop_ids=(0, 1),
            decode_steps=engine.decode_steps,
            stop_fraction=engine.stop_fraction,
            mesh=self.mesh,
        )
        slots = shard_slots(engine, self.mesh) * self.shards
        state = calls.abstract_state(slots, sampling.max_tokens)
        layout = SamplingLayout(self.config, self.mesh, weights=engine.weights)
        params = layout.abstract(self.params, self.mesh)
        return calls, params, state, slots

    def _sampling(self):
        job = self.job
        section = job.rl if "rl" in job.stages else job.reflect if "reflect" in job.stages else job.eval
        return section.sampling

    def _prefill(self) -> Step:
        calls, params, _, slots = self._rollout()
        tokens, images = self.job.engine.prompt_tokens[-1], self.job.engine.prompt_images[-1]
        new = self._new_tokens(slots, tokens, images)
        flops = self._new_tokens_flops(slots, tokens, images)
        return Step("prefill", calls.prefill, (params, new), ("params", "prompts"), flops, 0)

    def _insert(self) -> Step:
        calls, params, state, slots = self._rollout()
        tokens, images = self.job.engine.insert_tokens[-1], self.job.engine.insert_images[-1]
        rows = TurnStarts(*(self._rows_of((slots,), jnp.int32) for _ in TurnStarts._fields))
        arguments = (params, state, _key(), self._new_tokens(slots, tokens, images), rows)
        parts = ("params", "cache", "key", "turns", "rows")
        return Step(
            "insert", calls.insert, arguments, parts, self._new_tokens_flops(slots, tokens, images), 0
        )

    def _decode(self) -> Step:
        calls, params, state, slots = self._rollout()
        steps, cached = self.job.engine.decode_steps, self._sampling().max_tokens
        head = output_head(params.rest, self.config)
        return Step(
            "decode",
            calls.decode,
            (params, state, _key()),
            ("params", "cache", "key"),
            steps * self.family.decode_flops(self.config, slots, cached),
            0,
            executions=steps,
            reads=steps * local_bytes((params.layers, head, state.cache)),
        )

    def _new_tokens(self, rows: int, tokens: int, images: int) -> NewTokens:
        return NewTokens(
            tokens=self._rows_of((rows, tokens), jnp.int32),
            positions=self._rows_of((3, rows, tokens), jnp.int32, axis=1),
            length=self._rows_of((rows,), jnp.int32),
            image_index=self._rows_of((rows, tokens), jnp.int32),
            vision=self._images(self.shards, rows // self.shards * images, self.job.buckets.patches[-1]),
        )

    def _new_tokens_flops(self, rows: int, tokens: int, images: int) -> float:
        language = self.family.language_flops(self.config, tokens, rows, head=False)
        patches = self.job.buckets.patches[-1]
        return language + self.family.vision_flops(self.config, patches, rows * images)


def _key() -> jax.ShapeDtypeStruct:
    return jax.eval_shape(lambda: jax.random.key(0))
