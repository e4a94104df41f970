"""Cold start of Qwen2.5-VL-3B-Instruct on one host of 8 chips of 16 GiB (v5e-8).

    vilasr sft --config=configs/sft_3b.py --config.model.init_from=Qwen2.5-VL-3B-Instruct --workdir=runs/3b

It reads imported rows from runs/data (`--config.data.root=DIR`).
Then comes `configs/rl_3b.py`.
"""

from vilasr_jax.config import to_config_dict
from vilasr_jax.recipes import small_host_3b
from vilasr_jax.slices import on_slice


def get_config(slice_name: str = "v5e-8"):
    """The job's configuration on a slice; `:v6e-16` after the file's name asks for another."""
    return to_config_dict(on_slice(small_host_3b(("cold_start",)), slice_name))
