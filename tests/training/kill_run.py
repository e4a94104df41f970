"""`vilasr train`, but with rewards that random weights get too, so that every stage has work to do.

python -m tests.training.kill_run --config=... --workdir=...
"""

import jax

jax.config.update("jax_disable_most_optimizations", True)


from vilasr_jax import cli  # noqa: E402
from vilasr_jax.rewards import JobReward  # noqa: E402
from vilasr_jax.training.rejection_sampling import RULES  # noqa: E402


def reward(self, trajectory):
    """By the sampled tokens: as good as chance, but the same in every run."""
    total = float(trajectory.tokens.sum() % 3) / 2
    return {"accuracy": float(total == 1), "format": 1.0, "total": total}


def every_other(trajectory):
    """Every other conversation."""
    return trajectory.tokens.sum() % 2 == 0


if __name__ == "__main__":
    JobReward.__call__ = reward
    RULES.update(reflective={"kept": every_other}, cold_start={"kept": every_other})
    cli.main()
