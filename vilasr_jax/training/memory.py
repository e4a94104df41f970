"""The memory of a job's stages on each device, counted from the shapes that the stages allocate.

The stages and `vilasr plan` make their arrays, caches and weights with the functions whose shapes are added
up here, so a plan's account is that of the run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from vilasr_jax.config import JobConfig, OptimizerSection, SamplingSection
from vilasr_jax.models import ModelConfig
from vilasr_jax.models.params import abstract
from vilasr_jax.parallel import mesh_hosts
from vilasr_jax.parallel.memory import Account, local_bytes
from vilasr_jax.rollout.compiled_steps import CompiledSteps
from vilasr_jax.rollout.memory import ADVICE, rollout_memory
from vilasr_jax.rollout.sampling_weights import SamplingLayout
from vilasr_jax.training.lora import Base
from vilasr_jax.training.optimizers import make_optimizer
from vilasr_jax.training.state import abstract_state

TRAINING_ADVICE = (
    "Lower the batch (more accumulate, a smaller rl.micro_batch), recompute more (model.remat), or use more "
    "devices"
)
_SAMPLING_STEPS = ("prefill", "insert", "decode")
_UPDATING_STEPS = {"cold_start": ("sft",), "reflect": ("sft",), "rl": ("logprobs", "grpo_grad", "grpo_apply")}


@dataclasses.dataclass(frozen=True)
class StageMemory:
    """The accounts of a job's stages.

    Args:
      job: the configuration.
      config: its model's.
      params: shapes and shardings of its weights on `mesh`.
      mesh: of the devices of all hosts.
      limit: memory of a device, in bytes.
      process: index of the host that samples; None: this process.
    """

    job: JobConfig
    config: ModelConfig
    params: Any
    mesh: Mesh
    limit: int
    process: int | None = None

    def accounts(self, stages: Sequence[str]) -> list[Account]:
        """One for each moment of the stages that differs in what is held: updating, and sampling."""
        job, found = self.job, []
        weights = {"weights": local_bytes(self.params)}
        loaded = weights if len(mesh_hosts(self.mesh)) > 1 else {}  # see `Stages.sampled_weights`
        if "cold_start" in stages:
            state = self.state(job.cold_start.optimizer)
            found.append(self.updating("cold_start", state))
            if job.cold_start.validate_every:
                found.append(self.sampling("cold_start, validating", state, job.eval.sampling))
        if "reflect" in stages:
            if not job.data.reflect_traces:
                found.append(self.sampling("reflect, sampling", weights, job.reflect.sampling))
            found.append(self.updating("reflect", self.state(job.reflect.optimizer)))
        if "rl" in stages:
            state = self.state(job.rl.optimizer)
            if job.rl.kl_weight:
                state["reference weights"] = local_bytes(self.params)
            found.append(self.sampling("rl, sampling", state, job.rl.sampling))
            found.append(self.updating("rl", {**state, "gradients": state["trained weights"]}))
        for stage in ("synthesize", "eval"):
            if stage in stages:
                section = job.synthesis if stage == "synthesize" else job.eval
                found.append(self.sampling(f"{stage}, sampling", loaded, section.sampling))
        return found

    def state(self, section: OptimizerSection) -> dict[str, int]:
        """Bytes of a stage's training state, by name."""
        state = abstract_state(self.params, make_optimizer(section, 100), self.mesh, section)
        frozen = state.frozen.params if isinstance(state.frozen, Base) else state.frozen
        return {
            "trained weights": local_bytes(state.params),
            "frozen weights": local_bytes(frozen),
            "optimiser": local_bytes(state.opt_state),
        }

    def updating(self, stage: str, held: Mapping[str, int]) -> Account:
        """While a stage updates its weights."""
        steps = _UPDATING_STEPS[stage]
        return Account(f"{stage}, updating", dict(held), self.limit, TRAINING_ADVICE, steps)

    def sampling(self, moment: str, held: Mapping[str, int], sampling: SamplingSection) -> Account:
        """While a stage samples: what it holds, and a rollout, as `rollout.Engine` allocates it."""
        engine = self.job.engine
        layout = SamplingLayout(self.config, self.mesh, self.process, engine.weights)
        steps = CompiledSteps(
            self.config,
            abstract(self.config)[0],
            sampling=sampling,
            suppressed=np.zeros(self.config.vocab_size, bool),
            stop_ids=(),
            decode_steps=engine.decode_steps,
            stop_fraction=engine.stop_fraction,
            mesh=layout.host,
        )
        parts = {**held, **rollout_memory(steps, layout, engine, self.params)}
        return Account(moment, parts, self.limit, ADVICE, _SAMPLING_STEPS)
