"""One step of RL on all hosts: sampling, moving, log-probabilities, gradients, update, saving."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from vilasr_jax.config import JobConfig
from vilasr_jax.errors import ConfigError
from vilasr_jax.parallel.mesh import AXES, mesh_sizes
from vilasr_jax.plan.simulation.engine import (
    DECODE,
    DRAWING,
    HOST,
    PREFILL,
    EngineShape,
    HostTime,
    simulate_rollout,
)
from vilasr_jax.plan.simulation.host_costs import HostCosts
from vilasr_jax.plan.simulation.lengths import Lengths, Workload
from vilasr_jax.plan.simulation.rows import Call, batch_bytes, build_seconds, gradient_calls, pipeline
from vilasr_jax.plan.simulation.step_times import RolloutCalls, StepTimes
from vilasr_jax.plan.simulation.traffic import saving_seconds
from vilasr_jax.processing import Buckets
from vilasr_jax.rollout.memory import shard_slots
from vilasr_jax.training.steps import needs_old_logprobs

WAITING, MOVING, ROWS, SAVING = "waiting for the slowest", "moving", "building rows", "saving"
LOGPROBS, GRADIENTS, UPDATE = "log-probabilities", "gradients", "update"


class RLStep:
    """A step, at one end of the plan's range.

    Args:
      job: the configuration.
      times: of the compiled steps.
      groups: the conversations about each question.
      workload: their images.
      costs: of a host.
      side: pixels of an image.
      traffic: bytes between hosts, see `step_traffic`.
      shared_queue: see `simulate_rollout`.

    Raises:
      ConfigError: a host has no data shard of its own, or the plan is of another engine.
    """

    def __init__(
        self,
        job: JobConfig,
        times: StepTimes,
        groups: Sequence[Sequence[Lengths]],
        workload: Workload,
        costs: HostCosts,
        side: int,
        traffic: dict[str, int],
        shared_queue: bool = False,
    ):
        self.job, self.times, self.groups, self.workload = job, times, groups, workload
        self.costs, self.side, self.traffic, self.shared_queue = costs, side, traffic, shared_queue
        self.hosts, self.spec = times.topology.hosts, times.family.images
        self.lengths = [one for group in groups for one in group]
        self.patches = workload.image_tokens * self.spec.merge_unit
        if times.shards % self.hosts:
            raise ConfigError(
                f"config.mesh: {times.shards} data shards on {self.hosts} hosts; each host needs as many"
            )
        self._check_slots()
        saved = times.held("grpo_apply", "params", "frozen", "opt_state")
        self.checkpoint = times.topology.size // self.hosts * saved

    def engine(self) -> EngineShape:
        """The engine of each host."""
        section, patches = self.job.engine, self.job.buckets.patches
        mesh: Any = jax.sharding.AbstractMesh(mesh_sizes(self.job.mesh, self.times.topology.size), AXES)
        return EngineShape(
            shards=self.times.shards // self.hosts,
            slots=shard_slots(section, mesh),
            lanes=section.lanes,
            decode_steps=section.decode_steps,
            stop_fraction=section.stop_fraction,
            draw_wait=section.draw_wait,
            threads=min(self.costs.threads, section.draw_workers),
            prompts=Buckets(section.prompt_tokens, section.prompt_images, patches, self.spec),
            inserts=Buckets(section.insert_tokens, section.insert_images, patches, self.spec),
            patches=self.patches,
            call_rows=section.call_rows,
        )

    def _check_slots(self) -> None:
        """Raises ConfigError where the plan's decode step has other slots: its time can't be scaled."""
        engine, answer, tokens = self.engine(), self.times.answer("decode"), self.job.rl.sampling.max_tokens
        flops = self.times.family.decode_flops(self.times.config, engine.slots * self.times.shards, tokens)
        if not math.isclose(flops * answer["executions"], answer["flops"], rel_tol=0.02):
            raise ConfigError(
                f"the plan's step decode is not of config.engine.slots={self.job.engine.slots} in "
                f"{self.job.engine.lanes} lanes and config.rl.sampling.max_tokens={tokens}"
            )

    def rollout(self) -> list[HostTime]:
        """The time of each host while it samples."""
        engine = self.engine()
        calls = RolloutCalls(self.times, engine.prompts.fit("patches", self.patches))
        return simulate_rollout(self.groups, self.hosts, engine, calls, self.costs, self.shared_queue)

    def figures(self) -> dict[str, Any]:
        """Seconds, the parts that they sum up from, and what else is printed."""
        times, section, engine = self.times, self.job.rl, self.engine()
        hosts = self.rollout()
        slowest = max(host.seconds for host in hosts)
        sampling = (DECODE, PREFILL, DRAWING, HOST)
        parts = {name: float(np.mean([host.parts[name] for host in hosts])) for name in sampling}
        parts[WAITING] = float(np.mean([slowest - host.seconds for host in hosts]))
        weights = times.held("decode", "params") * (times.shards - 1) / times.shards
        received = self.traffic["received"] * self.hosts / times.topology.size
        parts[MOVING] = times.exchange(weights) + times.exchange(received)
        update, calls, memory = self._update()
        parts |= update
        parts[SAVING] = saving_seconds(self.checkpoint, self.costs, sum(parts.values()), section.save_every)
        seconds, trained = sum(parts.values()), self._useful_flops()
        steps = section.steps
        if section.epochs:
            steps = math.ceil(section.epochs * self.workload.questions / section.prompts)
        return {
            "seconds": seconds,
            "parts": parts,
            "waiting": parts[WAITING] / seconds,
            "sampling_seconds": slowest,
            "conversations": len(self.lengths),
            "tokens": sum(one.tokens for one in self.lengths),
            "sampled": sum(host.sampled for host in hosts),
            "slots_of_a_host": engine.slots * engine.shards * engine.lanes,
            "gradient_calls": calls,
            "useful_mfu": trained / (seconds * times.peak),
            "useful_mfu_of_gradients": trained / (parts[GRADIENTS] * times.peak),
            "steps": steps,
            "hours": steps * seconds / 3600,
            "network": self.traffic,
            "host_memory": memory,
        }

    def _useful_flops(self) -> float:
        """Of training on the conversations alone, without padding."""
        section = self.job.rl.optimizer
        return sum(
            self.times.trained(section, 1, one.tokens, one.images + one.drawn, self.patches)
            for one in self.lengths
        )

    def _update(self) -> tuple[dict[str, float], int, dict[str, int]]:
        """Seconds of the updates by part, gradient calls, and bytes of a host by what they are."""
        section, times, costs = self.job.rl, self.times, self.costs
        home = [number // section.group % self.hosts for number in range(len(self.lengths))]
        own, dim = max(1, section.micro_batch // self.hosts), self.spec.patch_dim
        updates = self.calls()
        parts = dict.fromkeys((LOGPROBS, GRADIENTS, UPDATE), 0.0)
        builds: list[float] = []
        runs: list[float] = []

        def run(name: str, seconds: float, build: float) -> None:
            parts[name] += seconds
            builds.append(build)
            runs.append(seconds)

        def seconds_of(step: str, call: Call) -> float:
            shape = (section.micro_batch, call.tokens, call.vision_rows, call.patches)
            flops = (
                sum(times.forward(*shape)) if step == "logprobs" else times.trained(section.optimizer, *shape)
            )
            return times.seconds(step, flops / times.answer(step)["flops"], same_exchanges=True)

        old, dispatch = needs_old_logprobs(section), costs.call_ms / 1000
        for call in (call for calls in updates for call in calls if old):
            build = build_seconds(call, self.lengths, costs, own, dim, home)
            run(LOGPROBS, seconds_of("logprobs", call), build)
        for calls in updates:
            for call in calls:  # images that were drawn again for the log-probabilities are still there
                build = build_seconds(call, self.lengths, costs, own, dim, None if old else home)
                if section.kl_weight:
                    run(LOGPROBS, seconds_of("logprobs", call), build)
                    build = dispatch
                run(GRADIENTS, seconds_of("grpo_grad", call), build)
            run(UPDATE, times.seconds("grpo_apply"), dispatch)
        parts[ROWS] = pipeline(builds, runs).idle
        every = [call for calls in updates for call in calls]
        batch = max(batch_bytes(call.shape, own, dim) for call in every)
        return parts, len(every), self._memory(batch)

    def calls(self) -> list[list[Call]]:
        """The gradient calls of each update."""
        order = np.random.default_rng([self.workload.seed, 2]).permutation(len(self.lengths)).tolist()
        return [
            gradient_calls(
                self.job,
                self.spec,
                [(n, self.lengths[n]) for n in part],
                self.workload.image_tokens,
                self.hosts,
            )
            for part in np.array_split(order, self.job.rl.updates)
        ]

    def _memory(self, batch: int) -> dict[str, int]:
        """Bytes that a host holds at most, besides Python and its libraries."""
        pictures = sum(one.images + one.drawn for one in self.lengths)
        return {
            "pictures": 2 * pictures * 3 * self.side**2 // self.hosts,  # sampled here, and drawn again
            "conversations": 9 * sum(one.tokens for one in self.lengths),  # ids, log-probabilities, mask
            "batches": 2 * batch,  # one is copied while the next is built
            "checkpoint": self.checkpoint,
        }
