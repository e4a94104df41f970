"""The published recipes laid out on the TPU slices that people rent, named as Google Cloud names them.

A layout changes how a batch is computed, never what a step learns from: batches, groups and updates stay.
"""

from __future__ import annotations

import dataclasses

from vilasr_jax.config import JobConfig, MeshSection
from vilasr_jax.errors import ConfigError

# Chips of each slice (Google counts cores of v5p, two a chip).
CHIPS = {"v5e-8": 8, "v5e-32": 32, "v5e-64": 64, "v6e-16": 16, "v5p-32": 16, "v5p-128": 64, "v5p-256": 128}
# Chips of the model axis in a stage that samples: as few as hold the weights then.
_MODEL = {
    ("3b", "v5e"): 2,
    ("3b", "v6e"): 1,
    ("3b", "v5p"): 1,
    ("7b", "v5e"): 4,
    ("7b", "v6e"): 2,
    ("7b", "v5p"): 1,
    ("32b", "v5p"): 4,
    ("72b", "v5p"): 8,
}
# And in a job that only imitates, where fewer will do.
_SFT_MODEL = {("7b", "v5e"): 2, ("32b", "v5p"): 2, ("72b", "v5p"): 4}
# What its backward pass computes again, where that is not all but attention (see `model.remat`).
_SFT_REMAT = {("7b", "v5e-32"): "full", ("7b", "v5p-32"): "dots", ("72b", "v5p-256"): "dots"}


def on_slice(job: JobConfig, name: str) -> JobConfig:
    """The job with mesh, rematerialisation, accumulation, micro-batch and rollout slots for a slice.

    A job of the cold start alone is laid out for that; its checkpoints go on in any other layout.

    Raises:
      ConfigError: no layout is known for this model and slice, or its batch cannot be divided.
    """
    size, kind = job.model.preset, name.partition("-")[0]
    model, remat = _MODEL.get((size, kind)), "attention"
    if job.stages == ("cold_start",):
        model, remat = _SFT_MODEL.get((size, kind), model), _SFT_REMAT.get((size, name), remat)
    if name not in CHIPS or model is None:
        raise ConfigError(f"no layout of {size} for {name!r}; slices: {', '.join(CHIPS)}")
    shards = CHIPS[name] // model
    for key, batch in (("cold_start", job.cold_start.batch), ("reflect", job.reflect.batch)):
        if batch % shards:
            raise ConfigError(
                f"config.{key}.batch={batch} is no multiple of the {shards} data shards of {name}"
            )
    lanes = job.engine.lanes * shards
    return dataclasses.replace(
        job,
        model=dataclasses.replace(job.model, remat=remat),
        mesh=MeshSection(data=1, fsdp=shards, model=model, context_parallel=model > 1),
        cold_start=dataclasses.replace(job.cold_start, accumulate=job.cold_start.batch // shards),
        reflect=dataclasses.replace(job.reflect, accumulate=job.reflect.batch // shards),
        rl=dataclasses.replace(job.rl, micro_batch=shards),
        engine=dataclasses.replace(job.engine, slots=-(-job.engine.slots // lanes) * lanes),
    )
