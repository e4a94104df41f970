"""The model FLOPs of a step, which utilisation (MFU) is measured against.

The forward FLOPs of the two towers are the model family's own; here is how often a step computes them.
"""

from __future__ import annotations

from vilasr_jax.config import OptimizerSection


def training_factor(freeze: tuple[str, ...], lora_rank: int) -> tuple[int, int]:
    """How often the forward FLOPs of (language model, vision tower) are computed in a training step.

    Forward once; backward twice, or once where only the way to the weights below is needed.
    """
    language = 2 if lora_rank or "language" in freeze else 3
    vision_trained = not {"vision", "merger"} <= set(freeze) and not lora_rank
    if not vision_trained and "language" in freeze:
        language = 1
    return language, 3 if vision_trained else 1


def flops_per_token(parameters: int, section: OptimizerSection, forwards: int = 0) -> float:
    """FLOPs of a trained token with the decoder's matrices; attention and the vision tower are left out.

    Args:
      parameters: that each token is multiplied with.
      section: of the optimiser: frozen matrices have no gradient of their own.
      forwards: further forward passes.
    """
    return 2.0 * (training_factor(section.freeze, section.lora_rank)[0] + forwards) * parameters
