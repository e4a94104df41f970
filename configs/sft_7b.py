"""Stage 1 of the published recipe, cold start, for Qwen2.5-VL-7B-Instruct on 32 chips of 16 GiB.

    vilasr sft --config=configs/sft_7b.py --config.model.init_from=Qwen2.5-VL-7B-Instruct --workdir=runs/7b

It reads imported rows from runs/data (`--config.data.root=DIR`).
Every host of the pod runs this same command. Then come `configs/reflect_7b.py` and `configs/rl_7b.py`.
"""

from vilasr_jax.config import to_config_dict
from vilasr_jax.recipes import published_7b
from vilasr_jax.slices import on_slice


def get_config(slice_name: str = "v5e-32"):
    """The job's configuration on a slice; `:v5e-64` after the file's name asks for another."""
    return to_config_dict(on_slice(published_7b(("cold_start",)), slice_name))
