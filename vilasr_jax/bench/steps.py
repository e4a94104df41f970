"""Training steps of a published size on this machine, with random weights: one of SFT and one of RL.

A supervised step trains one packed row of conversations with drawn images. A step of RL samples scripted
conversations with the rollout engine, and trains on them. Models up to 4B are trained in full but for the
vision tower, as published, larger ones with LoRA. MFU: FLOPs that the model needs, over the device's peak.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from vilasr_jax.bench.real_programs import least_seconds
from vilasr_jax.bench.rollout_load import WORDS, Load, ScriptedEngine, Subject, make_engine, make_requests
from vilasr_jax.config import (
    ColdStartSection,
    JobConfig,
    ModelSection,
    OptimizerSection,
    PackingSection,
    RLSection,
)
from vilasr_jax.models import preset
from vilasr_jax.models.params import abstract
from vilasr_jax.models.sharding import random_params
from vilasr_jax.parallel import check_devices, make_mesh, peak_flops, put_batch, sampling_mesh
from vilasr_jax.plan.steps import Steps
from vilasr_jax.processing import (
    Budget,
    Encoded,
    Tokenizer,
    collate_packed,
    image_grid,
    pack,
    train_tiny_tokenizer,
)
from vilasr_jax.rollout import Trajectory
from vilasr_jax.training.flops import training_factor
from vilasr_jax.training.optimizers import make_optimizer
from vilasr_jax.training.state import init_state
from vilasr_jax.training.steps import make_grpo_steps, make_sft_step

FULL = 5e9  # parameters up to which all of the language model is trained
KINDS = ("sft", "rl")


def bench_steps(size: str, tokens: int = 8192, layers: int = 0) -> dict[str, Any]:
    """Measures both steps, each in a process of its own; prints a table.

    Args:
      size: a preset, such as "3b".
      tokens: of the packed row.
      layers: of the decoder; 0: all.

    Raises:
      RuntimeError: a step fails.
    """
    records = []
    for kind in KINDS:
        print(f"measuring {kind} of {size}", flush=True)
        command = [sys.executable, "-m", "vilasr_jax.bench.steps", kind, size, str(tokens), str(layers)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"bench steps: {kind} failed: {done.stderr.strip()[-2000:]}")
        records.append(json.loads(done.stdout.splitlines()[-1]))
    for record in records:
        peak = f"{record['mfu']:.1%} MFU" if record["mfu"] else "no MFU (unknown peak)"
        sampled = f"   sampling {record['sampling_seconds']:.2f} s" if "sampling_seconds" in record else ""
        print(
            f"{record['name']:24} {record['seconds']:8.3f} s   {record['tokens_per_second']:8.0f} tokens/s   "
            f"{peak}   {record['peak_gib']:.1f} GiB{sampled}"
        )
    return {"size": size, "tokens": tokens, "layers": layers, "records": records}


def _job(size: str, tokens: int) -> JobConfig:
    """The job whose steps are measured, on one device."""
    parameters = sum(leaf.size for leaf in jax.tree.leaves(abstract(preset(size))[1]))
    freeze, patches = ("vision", "merger"), 4 * 256
    large = parameters > FULL
    sft = OptimizerSection(freeze=freeze, lora_rank=16 if large else 0, lora_base="int8" if large else "")
    packing = PackingSection(tokens=tokens, vision_rows=max(1, tokens // 384), patches=patches)
    section = ModelSection(
        preset=size, dtype="bfloat16", param_dtype="bfloat16" if large else "float32", remat="full"
    )
    return JobConfig(
        stages=("cold_start", "rl"),
        model=section,
        packing=packing,
        cold_start=ColdStartSection(batch=1, accumulate=1, optimizer=sft),
        rl=RLSection(micro_batch=1, optimizer=dataclasses.replace(sft, lora_base="")),
    )


def _steps(job: JobConfig, layers: int) -> tuple[Steps, Tokenizer, Budget]:
    steps = Steps(job, make_mesh(job.mesh, jax.devices()[:1]), layers)
    packing = job.packing
    budget = Budget(packing.tokens, packing.vision_rows, packing.patches, steps.family.images)
    return steps, train_tiny_tokenizer(list(WORDS), [], 480, steps.family), budget


def conversations(tokenizer: Tokenizer, budget: Budget) -> list[Encoded]:
    """Conversations that fill a row: an image before each turn of the model."""
    rng, used = np.random.default_rng(0), 0
    found: list[Encoded] = []
    unit, special = budget.spec.factor, tokenizer.special
    side = max(1, int((budget.patches // budget.spec.merge_unit) ** 0.5))
    while True:
        ids: list[int] = []
        mask: list[bool] = []
        images = []
        for _ in range(3):
            turn = [special.vision_start, *[special.image_pad] * side**2, special.vision_end]
            said, wrote = rng.integers(0, 256, 40).tolist(), rng.integers(0, 256, 120).tolist()
            ids += [*turn, *said, *wrote]
            mask += [False] * (len(turn) + len(said)) + [True] * len(wrote)
            images.append(Image.fromarray(rng.integers(0, 255, (side * unit, side * unit, 3), np.uint8)))
        used += len(ids)
        if found and (used > budget.tokens or 3 * (len(found) + 1) > budget.vision_rows):
            return found
        found.append(Encoded(np.array(ids, np.int32), np.array(mask), images, special))
        if used > budget.tokens:
            return found


def sft(size: str, tokens: int, layers: int) -> dict[str, Any]:
    """A supervised step on one packed row."""
    job = _job(size, tokens)
    steps, tokenizer, budget = _steps(job, layers)
    section = job.cold_start.optimizer
    optimizer = make_optimizer(section, 100)
    state = init_state(random_params(steps.config, 0, steps.mesh), optimizer, steps.mesh, section)
    rows = pack(conversations(tokenizer, budget), budget)[:1]
    batch = put_batch(steps.mesh, collate_packed(rows, budget, rows=1))
    run = make_sft_step(steps.graphdef, optimizer, mesh=steps.mesh, loss=job.cold_start.loss)

    def step() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(run(state, batch))

    return _record("sft", steps, section, _fastest(step), rows[0].examples)


def rl(size: str, tokens: int, layers: int) -> dict[str, Any]:
    """A step of RL: a group of scripted conversations, and the gradient and update on those of one row."""
    job = _job(size, tokens)
    steps, tokenizer, budget = _steps(job, layers)
    section, config = job.rl, steps.config
    optimizer = make_optimizer(section.optimizer, 100)
    params = random_params(config, 0, steps.mesh)
    state = init_state(params, optimizer, steps.mesh, section.optimizer)
    side = int(budget.patches**0.5) * budget.spec.patch_size
    load = Load(questions=1, group=4, turns=2, side=side, slots=4)
    subject = Subject(config, steps.graphdef, None, tokenizer)
    engine = make_engine(ScriptedEngine, load, subject, sampling_mesh(config, 4, jax.devices()[:1]))
    found: list[Trajectory] = []

    def sample() -> None:
        found[:] = engine.generate(state.all_params, make_requests(load), jax.random.key(0))

    sampling = _fastest(sample)
    rng = np.random.default_rng(0)
    examples = [
        Encoded(
            one.tokens,
            one.loss_mask,
            list(one.images_in_tokens),
            tokenizer.special,
            {"logprobs": one.logprobs, "advantages": np.full(len(one.tokens), rng.normal(), np.float32)},
        )
        for one in found
    ]
    fields = {"logprobs": np.dtype(np.float32), "advantages": np.dtype(np.float32)}
    rows = pack(examples, budget)[:1]
    batch = put_batch(steps.mesh, collate_packed(rows, budget, rows=1, extras=fields))
    ruled_out = np.zeros(config.vocab_size, bool)
    zero, gradient, apply = make_grpo_steps(steps.graphdef, optimizer, section, ruled_out, steps.mesh)

    def step() -> None:
        nonlocal state
        total = gradient(state, zero(state), batch, np.float32(1 / len(examples)))
        state, _ = jax.block_until_ready(apply(state, total))

    record = _record("rl, the update", steps, section.optimizer, _fastest(step), rows[0].examples)
    return {
        **record,
        "sampling_seconds": sampling,
        "sampled_tokens": sum(int(one.loss_mask.sum()) for one in found),
    }


def _fastest(call: Callable[[], None]) -> float:
    call()  # compiles
    return least_seconds(call)


def _record(
    name: str, steps: Steps, section: OptimizerSection, seconds: float, row: Sequence[Encoded]
) -> dict[str, Any]:
    device, config, family = steps.mesh.devices.flat[0], steps.config, steps.family
    useful, peak = sum(len(one.ids) for one in row), peak_flops()
    # Of the conversations alone: padding and attention between them earn nothing.
    language = sum(family.language_flops(config, len(one.ids), 1) for one in row)
    patches = [math.prod(image_grid(image, family.images)) for one in row for image in one.images]
    vision = sum(family.vision_flops(config, count, 1) for count in patches)
    factors = training_factor(section.freeze, section.lora_rank)
    flops = factors[0] * language + factors[1] * vision
    lora = f"LoRA of rank {section.lora_rank}{', int8 base' if section.lora_base else ''}"
    stats = device.memory_stats() or {}
    return {
        "name": name,
        "trained": lora if section.lora_rank else "language model",
        "device": device.device_kind,
        "row": useful,
        "seconds": seconds,
        "tokens_per_second": useful / seconds,
        "flops": flops,
        "mfu": flops / seconds / peak if peak else 0.0,
        "peak_gib": stats.get("peak_bytes_in_use", 0) / 2**30,
        "cores": os.cpu_count(),
    }


if __name__ == "__main__":
    check_devices()
    found = {"sft": sft, "rl": rl}[sys.argv[1]](sys.argv[2], *map(int, sys.argv[3:]))
    print(json.dumps(found))
