"""Stage 2 of the published recipe, reflective rejection sampling, from the cold start in the same workdir.

    vilasr reflect --config=configs/reflect_7b.py --workdir=runs/7b \
        --config.model.init_from=Qwen2.5-VL-7B-Instruct

Every host of the pod runs this same command.
"""

from vilasr_jax.config import to_config_dict
from vilasr_jax.recipes import published_7b


def get_config():
    """The job's configuration."""
    return to_config_dict(published_7b(("reflect",)))
