"""Compiles one step of a job for a topology; prints the figures as JSON on the last line of its output.

Each step has a separate process: libtpu reads its environment once, and memory is freed. Reads
{"job", "topology", "step", "layers", "slots"} from its standard input; with slots it is a sampler's step.
"""

from __future__ import annotations

import dataclasses
import json
import math
import resource
import sys
import time
import traceback
from typing import Any

import jax

from vilasr_jax.config import from_config_dict
from vilasr_jax.errors import UserError
from vilasr_jax.parallel import make_mesh
from vilasr_jax.plan.cost import step_cost
from vilasr_jax.plan.devices import compile_devices
from vilasr_jax.plan.hlo import parse
from vilasr_jax.plan.memory import Tensor, largest, largest_lowered, merged, refusal
from vilasr_jax.plan.predict import predict
from vilasr_jax.plan.run import SAMPLING_STEPS
from vilasr_jax.plan.sampling import SamplingSteps
from vilasr_jax.plan.steps import Step, Steps
from vilasr_jax.slices import parse_topology
from vilasr_jax.training.memory import StageMemory

MEMORY = "memory"  # in place of a step: the accounts of the job's stages
COMPILER_OPTIONS = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}


def main() -> None:
    """Entry point of `python -m vilasr_jax.plan.worker`."""
    request = json.load(sys.stdin)
    jax.config.update("jax_platforms", "cpu")
    try:
        answer = accounts(request) if request["step"] == MEMORY else compile_step(request)
    except UserError as error:
        answer = {"error": str(error)}
    except Exception as error:  # tracing and the compiler raise many types; other steps continue
        traceback.print_exc()
        answer = {"error": f"{type(error).__name__}: {str(error)[:400]}"}
    answer["host_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(answer))


def accounts(request: dict[str, Any]) -> dict[str, Any]:
    """The accounts of the job's stages, counted by the code that a run calls; nothing is compiled."""
    topology, job = parse_topology(request["topology"]), from_config_dict(request["job"])
    steps, limit = _steps(request), topology.chip.hbm_bytes
    if isinstance(steps, SamplingSteps):
        found = [dataclasses.replace(steps.account(limit), steps=SAMPLING_STEPS)]
    else:
        memory = StageMemory(job, steps.config, steps.params, steps.mesh, limit, process=0)
        found = memory.accounts(job.stages)
    return {"accounts": [dataclasses.asdict(account) for account in found]}


def _steps(request: dict[str, Any]) -> Steps | SamplingSteps:
    topology, job = parse_topology(request["topology"]), from_config_dict(request["job"])
    slots, layers = request.get("slots", 0), request.get("layers", 0)
    devices = compile_devices(topology, one_host=bool(slots))
    if slots:
        return SamplingSteps(job, devices, slots, layers)
    return Steps(job, make_mesh(job.mesh, devices), layers)


def compile_step(request: dict[str, Any]) -> dict[str, Any]:
    """The figures of one step; with "fits" false and the largest tensors where it needs too much memory."""
    topology, steps = parse_topology(request["topology"]), _steps(request)
    step = steps.build(request["step"])
    answer: dict[str, Any] = {
        "step": step.name,
        "mesh": dict(steps.mesh.shape),
        "limit_bytes": topology.chip.hbm_bytes,
        "arguments": argument_bytes(step),
        "flops": step.flops,
        "samples": step.samples,
        "executions": step.executions,
    }
    held = sum(answer["arguments"].values())
    if held > topology.chip.hbm_bytes:  # no need to compile
        return answer | {"fits": False, "peak_bytes": held, "largest": _plain(merged(argument_tensors(step)))}
    began = time.monotonic()
    lowered = step.function.lower(*step.arguments)
    answer["lower_seconds"] = time.monotonic() - began
    try:
        compiled = lowered.compile(compiler_options=COMPILER_OPTIONS)
    except jax.errors.JaxRuntimeError as error:
        refused = refusal(str(error))
        if refused is None:
            raise
        wanted, tensors = refused
        tensors = tensors or largest_lowered(lowered.as_text())
        tensors = merged([*tensors, *argument_tensors(step)])
        return answer | {"fits": False, "peak_bytes": wanted, "largest": _plain(tensors)}
    answer["compile_seconds"] = time.monotonic() - began - answer["lower_seconds"]
    stats, text = compiled.memory_analysis(), compiled.as_text()
    peak = stats.peak_memory_in_bytes
    tensors = merged([*largest(parse(text)), *argument_tensors(step)], 8)
    answer |= {"fits": peak <= topology.chip.hbm_bytes, "peak_bytes": peak, "largest": _plain(tensors)}
    answer["temporary_bytes"] = stats.temp_size_in_bytes
    if request.get("save"):
        with open(request["save"], "w") as file:
            file.write(text)
    try:
        cost = step_cost(text)
    except ValueError as error:  # an unreadable loop or group of chips; the memory figures are right
        return answer | {"error": str(error)}
    prediction = predict(cost, topology, step.reads)
    return answer | {
        "cycles": cost.cycles,
        "kernel_flops": cost.kernel_flops,
        "loops": cost.loops,
        "synchronous_bytes": cost.bytes(asynchronous=False),
        "asynchronous_bytes": cost.bytes(asynchronous=True),
        "collectives": [vars(c) for c in sorted(cost.collectives, key=lambda c: -c.bytes)[:12]],
        "seconds": vars(prediction),
        "utilisation": prediction.utilisation(step.flops, topology),
    }


def argument_tensors(step: Step) -> list[Tensor]:
    """The arguments' arrays, as large as they are on one device."""
    tensors = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(step.arguments):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            continue
        part = step.parts[path[0].idx]
        name = "/".join([part, jax.tree_util.keystr(path[1:], simple=True, separator="/")])
        local = leaf.sharding.shard_shape(leaf.shape) if leaf.sharding else leaf.shape
        shape = f"{leaf.dtype.name}[{','.join(map(str, local))}]"
        tensors.append(Tensor(name, shape, leaf.dtype.itemsize * math.prod(local)))
    return tensors


def argument_bytes(step: Step) -> dict[str, int]:
    """Bytes on one device by part: trained weights, optimiser, frozen weights, cache, batch, ..."""
    sums: dict[str, int] = {}
    for tensor in argument_tensors(step):
        words = tensor.name.split("/")
        part = words[1] if words[0] == "state" else words[0]
        sums[part] = sums.get(part, 0) + tensor.bytes
    return sums


def _plain(tensors: list[Tensor]) -> list[dict[str, Any]]:
    return [vars(tensor) for tensor in tensors]


if __name__ == "__main__":
    main()
