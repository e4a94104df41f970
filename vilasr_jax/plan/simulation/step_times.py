"""The seconds of compiled steps of any size, from a plan's figures of the largest.

A smaller call computes less, in proportion to its model FLOPs. A training step exchanges as much as the
compiled one: gathering the weights does not depend on the rows. No call is faster than reading its weights.
"""

from __future__ import annotations

import math
from typing import Any

from vilasr_jax.config import JobConfig, OptimizerSection
from vilasr_jax.errors import ConfigError
from vilasr_jax.models import DEFAULT_PRESET, family_of
from vilasr_jax.parallel.mesh import mesh_sizes
from vilasr_jax.plan.predict import LINK_FRACTION
from vilasr_jax.plan.steps import model_config
from vilasr_jax.slices import parse_topology
from vilasr_jax.training.flops import training_factor

ENDS = ("best", "worst")


class StepTimes:
    """A plan's steps at one end of their range.

    Args:
      result: what `plan` returned, or a file of `--json`.
      job: that it was compiled for.
      end: "best" or "worst".

    Raises:
      ConfigError: it is of another size or layout.
    """

    def __init__(self, result: dict[str, Any], job: JobConfig, end: str):
        self.end, self.topology = end, parse_topology(result["topology"])
        self.config = model_config(job, result["layers"])
        self.family = family_of(self.config)
        self.answers = {answer["step"]: answer for answer in result["steps"]}
        data, fsdp, model = mesh_sizes(job.mesh, self.topology.size)
        self.shards = data * fsdp
        if result["config"] != job.name:
            raise ConfigError(f"the plan is of {result['config']!r}, and --config of {job.name!r}")
        preset = job.model.preset or DEFAULT_PRESET
        if result.get("preset", preset) != preset:
            raise ConfigError(f"the plan is of {result['preset']!r}, and --config of {preset!r}")
        wanted = {"data": data, "fsdp": fsdp, "model": model}
        for answer in result["steps"]:
            if answer.get("mesh", wanted) != wanted:
                raise ConfigError(f"the plan's step {answer['step']} has mesh {answer['mesh']}, not {wanted}")
        self.peak = self.topology.size * self.topology.chip.peak_flops

    def answer(self, step: str) -> dict[str, Any]:
        """The figures of a step; raises ConfigError where the plan has no time for it."""
        found = self.answers.get(step, {})
        if "seconds" not in found:
            why = found.get("error") or (
                "it does not fit" if found.get("fits") is False else "it is not there"
            )
            raise ConfigError(f"the plan has no seconds of the step {step}: {why}")
        return found

    def held(self, step: str, *parts: str) -> int:
        """Bytes of some arguments of a step on one chip; 0 where the plan does not say."""
        arguments = self.answers.get(step, {}).get("arguments", {})
        return sum(arguments.get(part, 0) for part in parts)

    @property
    def _bandwidth(self) -> float:
        """Bytes per second that a chip receives; a single chip has nothing to wait for."""
        return self.topology.gather_bandwidth(self.shards) or math.inf

    def exchange(self, received: float) -> float:
        """Seconds in which each chip receives some bytes from the other shards."""
        seconds = received / self._bandwidth
        return seconds if self.end == "best" else seconds / LINK_FRACTION

    def _exchanges(self, answer: dict[str, Any]) -> tuple[float, float]:
        """Seconds of (synchronous, asynchronous) exchanges at full bandwidth."""
        synchronous, asynchronous = (
            answer["seconds"].get(kind, answer.get(f"{kind}_bytes", 0.0) / self._bandwidth)
            for kind in ("synchronous", "asynchronous")
        )
        return synchronous, asynchronous

    def seconds(self, step: str, fraction: float = 1.0, *, same_exchanges: bool = False) -> float:
        """Seconds of one execution whose model FLOPs are `fraction` of the compiled step's.

        `same_exchanges`: it exchanges as much as the compiled one, else the fraction too.
        """
        answer = self.answer(step)
        given, executions = answer["seconds"][self.end], answer["executions"]
        synchronous, asynchronous = self._exchanges(answer)
        part = 1.0 if same_exchanges else fraction
        if self.end == "best":
            computed = max(given - synchronous, 0.0)
            found = max(computed * fraction + synchronous * part, asynchronous * part)
        else:
            exchanged = (synchronous + asynchronous) / LINK_FRACTION
            found = max(given - exchanged, 0.0) * fraction + min(exchanged, given) * part
        least = self.held(step, "params") / self.topology.chip.hbm_bandwidth
        return max(found / executions, least)

    def forward(self, rows: int, tokens: int, vision_rows: int, patches: int) -> tuple[float, float]:
        """Forward FLOPs of (language model, vision tower) on rows that have `vision_rows` each."""
        language = self.family.language_flops(self.config, tokens, rows)
        vision = self.family.vision_flops(self.config, patches, rows * vision_rows) if vision_rows else 0.0
        return language, vision

    def trained(
        self, section: OptimizerSection, rows: int, tokens: int, vision_rows: int, patches: int
    ) -> float:
        """FLOPs of a training step on such rows."""
        factors = training_factor(section.freeze, section.lora_rank)
        language, vision = self.forward(rows, tokens, vision_rows, patches)
        return factors[0] * language + factors[1] * vision


class RolloutCalls:
    """Seconds of an engine's calls (`engine.Calls`); `patches` are those of a vision row."""

    def __init__(self, times: StepTimes, patches: int):
        self.times, self.patches = times, patches
        self.decode = times.seconds("decode")
        self.start = self.decode  # it copies a prompt's cache and reads the head once: no more than a token

    def prefill(self, rows: int, tokens: int, images: int) -> float:
        """Computes prompts: `rows` of a shard, with `images` vision rows."""
        return self._entering("prefill", rows, tokens, images)

    def insert(self, rows: int, tokens: int, images: int) -> float:
        """Writes replies into the cache."""
        return self._entering("insert", rows, tokens, images)

    def _entering(self, step: str, rows: int, tokens: int, images: int) -> float:
        times, shards = self.times, self.times.shards
        flops = times.family.language_flops(times.config, tokens, rows * shards, head=False)
        if images:
            flops += times.family.vision_flops(times.config, self.patches, images * shards)
        return times.seconds(step, flops / times.answer(step)["flops"])
