"""Stage 1 of the published recipe, cold start, for Qwen2.5-VL-7B-Instruct on 32 chips of 16 GiB.

    vilasr sft --config=configs/sft_7b.py --config.model.init_from=Qwen2.5-VL-7B-Instruct --workdir=runs/7b

Every host of the pod runs this same command. Then come `configs/reflect_7b.py` and `configs/rl_7b.py`.
"""

from vilasr_jax.config import to_config_dict
from vilasr_jax.recipes import published_7b


def get_config():
    """The job's configuration."""
    return to_config_dict(published_7b(("cold_start",)))
