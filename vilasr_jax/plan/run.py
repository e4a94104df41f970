"""`vilasr plan`: every step of a job compiled for a slice, each in a separate process."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from vilasr_jax.config import TRAINED, JobConfig, to_dict
from vilasr_jax.errors import ConfigError
from vilasr_jax.models import DEFAULT_PRESET
from vilasr_jax.parallel.memory import Account
from vilasr_jax.slices import SLICES, Topology, parse_topology

SAMPLING_STEPS = ("prefill", "insert", "decode")
_MAIN = (
    "grpo_grad",
    "sft",
    "decode",
    "vision",
)  # a search compiles the first of these steps that the job has


@dataclasses.dataclass
class Planner:
    """Compiles steps within a time limit.

    Args:
      topology: the slice.
      minutes: of all compilations.
      report: called with a line at each start and end.
      layers: number of decoder layers to compile; 0: all.
      save: folder for the optimised HLO text of each step; empty: none.
      slots: of a sampler, whose steps are compiled; 0: the steps of the job's stages.
    """

    topology: Topology
    minutes: float
    report: Callable[[str], None] = print
    layers: int = 0
    save: str = ""
    slots: int = 0

    def __post_init__(self):
        self.deadline = time.monotonic() + 60 * self.minutes
        if importlib.util.find_spec("libtpu") is None:
            raise ConfigError("a plan compiles with libtpu, which is not installed: pip install libtpu")

    def compile(self, job: JobConfig, step: str, topology: Topology | None = None) -> dict[str, Any]:
        """The worker's answer for one step, or for "memory"; {"error": ...} where there is none in time."""
        topology = topology or self.topology
        left = self.deadline - time.monotonic()
        if left < 1:
            return {"step": step, "error": "not compiled: --max-minutes were over"}
        request = {"job": to_dict(job), "topology": topology.name, "step": step, "layers": self.layers}
        request["slots"] = self.slots
        if self.save:
            os.makedirs(self.save, exist_ok=True)
            request["save"] = os.path.join(self.save, f"{step}.hlo")
        began = time.monotonic()
        env = {**os.environ, "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-m", "vilasr_jax.plan.worker"]
        try:
            done = subprocess.run(
                command, input=json.dumps(request), capture_output=True, text=True, timeout=left, env=env
            )
        except subprocess.TimeoutExpired:
            return {"step": step, "error": "not finished: --max-minutes were over"}
        lines = done.stdout.strip().splitlines()
        if done.returncode or not lines:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return {"step": step, "error": f"the compiler failed: {last[:300]}"}
        answer = {"step": step, **json.loads(lines[-1]), "wall_seconds": time.monotonic() - began}
        answer["step"] = step
        return answer

    def accounts(self, job: JobConfig) -> list[Account]:
        """What each chip holds in every moment of the job; empty where the time was over.

        Raises:
          ConfigError: a layout that no run could have.
        """
        answer = self.compile(job, "memory")
        if "max-minutes" in answer.get("error", ""):
            return []
        if "error" in answer:
            raise ConfigError(answer["error"])
        return [Account(**account) for account in answer["accounts"]]


def _check_size(job: JobConfig) -> None:
    """Raises ConfigError where the weights would say which model it is: a plan does not read them."""
    if not job.model.preset and (job.model.init_from or not set(job.stages) & set(TRAINED)):
        raise ConfigError("a plan reads no weights: name their size with --config.model.preset")


def accounts_of(result: dict[str, Any]) -> list[Account]:
    """The accounts in a plan's result."""
    fields = [field.name for field in dataclasses.fields(Account)]
    return [Account(**{name: one[name] for name in fields}) for one in result["memory"]]


def plan(
    job: JobConfig,
    topology: str,
    names: Sequence[str] = (),
    *,
    minutes: float = 60.0,
    report: Callable[[str], None] = print,
    layers: int = 0,
    save: str = "",
    slots: int = 0,
) -> dict[str, Any]:
    """Compiles the job's steps; returns {"topology", "steps": [...], "memory": [...], "fits"}.

    With `slots` these are the steps of `solve` and `serve` with that many conversations on one host, with the
    published weights of the job's size.

    Raises:
      ConfigError: an unknown step or topology, or libtpu is missing.
    """
    _check_size(job)
    planner = Planner(parse_topology(topology), minutes, report, layers, save, slots)
    known = list(SAMPLING_STEPS) if slots else step_names(job)
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"--steps={unknown[0]}: the job's stages have {', '.join(known)}")
    accounts, answers = planner.accounts(job), []
    for name in names or known:
        report(f"{name}: compiling for {topology} ...")
        answers.append(planner.compile(job, name))
    temporaries = {one["step"]: one["temporary_bytes"] for one in answers if "temporary_bytes" in one}
    accounts = [account.with_temporaries(temporaries) for account in accounts]
    result = {"topology": topology, "config": job.name, "layers": layers, "steps": answers}
    result["preset"] = job.model.preset or DEFAULT_PRESET
    result["memory"] = [{**dataclasses.asdict(account), "total": account.total} for account in accounts]
    fits = [answer.get("fits") for answer in answers]
    held = [account.total <= account.limit for account in accounts]
    result["fits"] = False if False in (*fits, *held) else all(fits) or None
    if False in fits and not slots:
        result["nearest"] = nearest(planner, job, answers[fits.index(False)]["step"])
    return result


def step_names(job: JobConfig) -> list[str]:
    """The steps of the job's stages, in the order of a run."""
    found = []
    if {"cold_start", "reflect"} & set(job.stages):
        found.append("sft")
    if {"reflect", "rl", "eval"} & set(job.stages):
        found += ["prefill", "insert", "decode"]
    if "rl" in job.stages:
        found += ["logprobs", "grpo_grad", "grpo_apply"]
    return [*found, "vision"]


def refuse(result: dict[str, Any]) -> None:
    """Raises a ConfigError for a plan that does not fit, with what is too large and what would fit."""
    for answer in result["steps"]:
        if answer.get("fits") is False:
            gib = 2**30
            named = (f"{t['name']} {t['shape']} {t['bytes'] / gib:.2f} GiB" for t in answer["largest"][:3])
            found = result.get("nearest") or "none was found in the time given"
            raise ConfigError(
                f"{answer['step']} does not fit {result['topology']}: it needs at least "
                f"{answer['peak_bytes'] / gib:.1f} of {answer['limit_bytes'] / gib:.2f} GiB per chip. "
                f"Largest: {'; '.join(named)}. Nearest that fits: {found}"
            )
    for account in accounts_of(result):
        account.check()


def nearest(planner: Planner, job: JobConfig, step: str) -> str | None:
    """The first smaller variant of the job, or larger slice, in which `step` fits; None when time is over."""
    for label, variant, topology in _smaller(job, planner.topology):
        planner.report(f"{step}: trying {label} ...")
        answer = planner.compile(variant, step, topology)
        if answer.get("fits"):
            return label
        if "max-minutes" in answer.get("error", ""):
            return None
    return None


def _smaller(job: JobConfig, topology: Topology) -> Iterator[tuple[str, JobConfig, Topology]]:
    if job.model.remat != "full":
        job = with_keys(job, {"model.remat": "full"})
        yield "--config.model.remat=full", job, topology
    for factor in (2, 4, 8):
        keys = {
            "cold_start.accumulate": job.cold_start.accumulate * factor,
            "reflect.accumulate": job.reflect.accumulate * factor,
            "rl.micro_batch": max(1, job.rl.micro_batch // factor),
            "engine.slots": max(1, job.engine.slots // factor),
        }
        yield (
            " ".join(f"--config.{key}={value}" for key, value in keys.items()),
            with_keys(job, keys),
            topology,
        )
    for larger in SLICES.values():
        if larger.chip == topology.chip and larger.size > topology.size:
            yield f"--topology={larger.name}", job, larger


def with_keys(job: Any, values: dict[str, Any]) -> Any:
    """A copy of the job with keys such as "rl.micro_batch" changed."""
    for path, value in values.items():
        section, _, key = path.partition(".")
        job = dataclasses.replace(
            job, **{section: dataclasses.replace(getattr(job, section), **{key: value})}
        )
    return job


def sweep(
    job: JobConfig,
    topology: str,
    *,
    minutes: float = 60.0,
    report: Callable[[str], None] = print,
    layers: int = 0,
) -> dict[str, Any]:
    """Compiles the job's main training step for other meshes, remat policies and batch sizes.

    Returns:
      {"topology", "step", "tried": [...], "recommended": keys or None, "untried": count without time}.
    """
    _check_size(job)
    planner = Planner(parse_topology(topology), minutes, report, layers)
    known = step_names(job)
    step = next(name for name in _MAIN if name in known)
    tried, candidates = [], list(variants(job, planner.topology, step))
    for at, keys in enumerate(candidates):
        label = " ".join(f"--config.{key}={value}" for key, value in keys.items())
        report(f"{at + 1} of {len(candidates)}: {label}")
        answer = planner.compile(with_keys(job, keys), step)
        if "max-minutes" in answer.get("error", ""):
            break
        tried.append({"keys": keys, "label": label, **answer})
    usable = [one for one in tried if one.get("fits") and one.get("seconds") and one["samples"]]
    best = min(usable, key=lambda one: one["seconds"]["best"] / one["samples"], default=None)
    return {
        "topology": topology,
        "step": step,
        "tried": tried,
        "recommended": best["label"] if best else None,
        "untried": len(candidates) - len(tried),
    }


def variants(job: JobConfig, topology: Topology, step: str) -> Iterator[dict[str, Any]]:
    """Keys to try: few devices for a row first, little computed again, large batches."""
    size = topology.size
    for model in (1, 2, 4, 8):
        if size % model or size // model < 1:
            continue
        shards = size // model
        for remat in ("dots", "attention", "full"):
            for rows in (4, 2, 1):
                keys = {"mesh.data": 1, "mesh.fsdp": shards, "mesh.model": model, "model.remat": remat}
                keys["mesh.context_parallel"] = model > 1
                if step == "sft":
                    keys |= {"cold_start.batch": rows * shards, "cold_start.accumulate": 1}
                else:
                    keys |= {"rl.micro_batch": rows * shards}
                yield keys
