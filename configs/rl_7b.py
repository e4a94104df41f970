"""Stage 3 of the published recipe, GRPO, from stage 2's checkpoint in the same workdir.

    vilasr rl --config=configs/rl_7b.py --config.model.init_from=Qwen2.5-VL-7B-Instruct --workdir=runs/7b

Every host of the pod runs this same command.
"""

from vilasr_jax.config import to_config_dict
from vilasr_jax.recipes import published_7b


def get_config():
    """The job's configuration."""
    return to_config_dict(published_7b(("rl",)))
