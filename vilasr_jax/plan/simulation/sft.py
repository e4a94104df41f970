"""An epoch of supervised training over packed rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from vilasr_jax.config import JobConfig
from vilasr_jax.plan.simulation.host_costs import HostCosts
from vilasr_jax.plan.simulation.lengths import Lengths, Workload
from vilasr_jax.plan.simulation.rl import MOVING, ROWS, SAVING
from vilasr_jax.plan.simulation.rows import batch_bytes, supervised_rows
from vilasr_jax.plan.simulation.step_times import StepTimes
from vilasr_jax.plan.simulation.traffic import GATHERED, saving_seconds

STEP = "supervised step"
ENCODING_THREADS = 2  # of `tasks.pipeline.batches`


def sft_epoch(
    job: JobConfig,
    times: StepTimes,
    lengths: Sequence[Lengths],
    workload: Workload,
    costs: HostCosts,
    side: int,
) -> dict[str, Any]:
    """Seconds of an epoch of the stage that the plan's step `sft` is of, and their parts.

    Args:
      job: the configuration.
      times: of the compiled steps, at one end of their range.
      lengths: conversations that are packed to measure how many a row holds.
      workload: how many there are, or how many rows.
      costs: of a host.
      side: pixels of an image.
    """
    stage = "cold_start" if "cold_start" in job.stages else "reflect"
    section, spec, hosts = getattr(job, stage), times.family.images, times.topology.hosts
    fill = supervised_rows(job, spec, lengths, workload.image_tokens)
    tokens, vision_rows, patches = fill.shape
    rows = workload.rows or math.ceil(workload.traces / fill.conversations)
    steps = math.ceil(rows / section.batch)
    flops = times.trained(section.optimizer, section.batch, tokens, vision_rows, patches)
    device = times.seconds("sft", flops / times.answer("sft")["flops"], same_exchanges=True)

    # ------------------------------------------------ the host: its rows of a batch, built ahead
    own = max(1, section.batch // hosts)
    images = fill.images * (costs.decode_ms + costs.patch_ms) / 1000
    text = costs.writing(1) * fill.tokens + costs.encoding(1) * fill.tokens
    batch = batch_bytes(fill.shape, own, spec.patch_dim)
    build = own * (images + text) / ENCODING_THREADS + batch / (1e9 * costs.copy_gbs)

    traffic = {"sent": GATHERED, "received": hosts * GATHERED} if hosts > 1 else {"sent": 0, "received": 0}
    each = {
        STEP: device,
        ROWS: max(build - device, 0.0),
        MOVING: times.exchange(traffic["received"] * hosts / times.topology.size),
    }
    saved = ("params", "opt_state") if section.optimizer.lora_base else ("params", "frozen", "opt_state")
    checkpoint = times.topology.size // hosts * times.held("sft", *saved)
    each[SAVING] = saving_seconds(checkpoint, costs, sum(each.values()), section.save_every)
    parts = {name: value * steps for name, value in each.items()}
    seconds = sum(parts.values())
    useful = np.mean(
        [
            times.trained(
                section.optimizer,
                1,
                one.tokens,
                one.images + one.drawn,
                workload.image_tokens * spec.merge_unit,
            )
            for one in lengths
        ]
    )
    return {
        "stage": stage,
        "seconds": seconds,
        "seconds_a_step": sum(each.values()),
        "parts": parts,
        "steps": steps,
        "rows": rows,
        "conversations_a_row": fill.conversations,
        "used_tokens": fill.tokens / tokens,
        "row": list(fill.shape),
        "useful_mfu": float(useful) * fill.conversations * rows / (seconds * times.peak),
        "hours": seconds / 3600,
        "network": traffic,
        "host_memory": {
            "batches": 2 * batch,
            "pictures": math.ceil(2 * own * fill.images * 3 * side**2),
            "checkpoint": checkpoint,
        },
    }
