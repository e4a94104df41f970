"""Stage 2 of the published recipe, reflective rejection sampling, from the cold start in the same workdir.

    vilasr reflect --config=configs/reflect_7b.py --workdir=runs/7b \
        --config.model.init_from=Qwen2.5-VL-7B-Instruct

It reads imported rows from runs/data (`--config.data.root=DIR`).
Every host of the pod runs this same command.
"""

from vilasr_jax.config import to_config_dict
from vilasr_jax.recipes import published_7b
from vilasr_jax.slices import on_slice


def get_config(slice_name: str = "v5e-32"):
    """The job's configuration on a slice; `:v5e-64` after the file's name asks for another."""
    return to_config_dict(on_slice(published_7b(("reflect",)), slice_name))
