"""`vilasr plan --job`: a step of RL and an epoch of supervised training, from the seconds of their calls.

Simulated is what a run does: the division of the questions, the engines' schedules, the rows of each gradient
call, what the host builds, and what travels. Seconds are as uncalibrated as the plan's.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etils import epath

from vilasr_jax.config import JobConfig
from vilasr_jax.errors import ConfigError
from vilasr_jax.files import parse_json
from vilasr_jax.plan.simulation.host_costs import known_costs
from vilasr_jax.plan.simulation.lengths import Workload, drawn_lengths, grouped, recorded_lengths
from vilasr_jax.plan.simulation.rl import RLStep
from vilasr_jax.plan.simulation.sft import sft_epoch
from vilasr_jax.plan.simulation.step_times import ENDS, StepTimes
from vilasr_jax.plan.simulation.traffic import step_traffic
from vilasr_jax.slices import parse_topology

PACKED = 512  # conversations that are packed to measure a supervised row


def simulate_job(
    job: JobConfig,
    result: Mapping[str, Any],
    workload: Workload,
    costs: Mapping[str, float],
    *,
    recorded: Path | None = None,
    shared_queue: bool = False,
    price: float = 0.0,
) -> dict[str, Any]:
    """Simulates a step of RL and an epoch of supervised training, where the job has them.

    Args:
      job: the configuration.
      result: of `plan`, or what its `--json` has saved.
      workload: the distribution of conversations.
      costs: of a host (see `HostCosts`), in place of measured ones.
      recorded: a folder with sampled conversations, in place of the distribution.
      shared_queue: hosts sample conversations of one queue; a run divides the questions into equal parts.
      price: of a chip per hour; 0: no cost is computed.

    Returns:
      {"rl": {...}, "sft": {...}} with figures at "best" and "worst", and what they were computed from.

    Raises:
      ConfigError: the plan is of another job, or lacks the seconds of a step.
    """
    times = {end: StepTimes(dict(result), job, end) for end in ENDS}
    family, topology = times["best"].family, times["best"].topology
    workload = workload.for_job(job, family)
    stored = recorded_lengths(recorded, workload) if recorded else None
    trained = [stage for stage in ("cold_start", "reflect", "rl") if stage in job.stages]
    if not trained:
        raise ConfigError(f"--job: config.stages={job.stages} trains nothing")
    side = math.isqrt(workload.image_tokens) * family.images.factor
    host, sources = known_costs(costs, side, family)
    found: dict[str, Any] = {
        "workload": dataclasses.asdict(workload),
        "recorded": str(recorded or ""),
        "host_costs": {name: {"value": value, "source": sources[name]} for name, value in vars(host).items()},
        "chips": topology.size,
        "hosts": topology.hosts,
        "shared_queue": shared_queue,
    }
    if trained != ["rl"]:
        lengths = drawn_lengths(workload, job, PACKED, seed=4)
        if stored is not None:
            lengths = [one for group in stored.values() for one in group][:PACKED]
        found["sft"] = {end: sft_epoch(job, times[end], lengths, workload, host, side) for end in ENDS}
    if "rl" in trained:
        groups = grouped(workload, job, stored, job.rl.prompts, job.rl.group)
        traffic = step_traffic(groups, topology.hosts, side)
        found["rl"] = {
            end: RLStep(job, times[end], groups, workload, host, side, traffic, shared_queue).figures()
            for end in ENDS
        }
    for figures in (found[stage][end] for stage in ("sft", "rl") if stage in found for end in ENDS):
        if price and figures["hours"]:
            figures["cost"] = figures["hours"] * topology.size * price
    return found


def read_plan(path: str, topology: str) -> dict[str, Any]:
    """A plan that `--json` has saved.

    Raises:
      ConfigError: the file is none, or of another slice.
    """
    try:
        result = parse_json(epath.Path(path).read_bytes())
        complete = {"topology", "config", "layers", "steps"} <= result.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"--saved={path}: can't be read: {error}") from None
    if not complete:
        raise ConfigError(f"--saved={path} is no plan: give a file that `vilasr plan --json` has written")
    if parse_topology(result["topology"]) != parse_topology(topology):
        raise ConfigError(f"--saved={path} is of {result['topology']}, not of --topology={topology}")
    return result
