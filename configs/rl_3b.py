"""Reflection and GRPO of Qwen2.5-VL-3B-Instruct on one host of 8 chips of 16 GiB (v5e-8).

    vilasr train --config=configs/rl_3b.py --config.model.init_from=Qwen2.5-VL-3B-Instruct --workdir=runs/3b

Both go on from the cold start of `configs/sft_3b.py` in the same workdir.
"""

from vilasr_jax.config import to_config_dict
from vilasr_jax.recipes import small_host_3b


def get_config():
    """The job's configuration."""
    return to_config_dict(small_host_3b(("reflect", "rl")))
