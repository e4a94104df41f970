"""The published cold start with Qwen2.5-VL-72B-Instruct, on 128 chips of 95 GiB (v5p-256).

    vilasr sft --config=configs/sft_72b.py --config.model.init_from=Qwen2.5-VL-72B-Instruct --workdir=runs/72b

It reads imported rows from runs/data (`--config.data.root=DIR`).
Every host of the pod runs this same command.
"""

import dataclasses

from vilasr_jax.config import to_config_dict
from vilasr_jax.recipes import published_7b
from vilasr_jax.slices import on_slice


def get_config(slice_name: str = "v5p-256"):
    """The job's configuration on a slice."""
    job = published_7b(("cold_start",))
    job = dataclasses.replace(job, name="72b", model=dataclasses.replace(job.model, preset="72b"))
    return to_config_dict(on_slice(job, slice_name))
