"""The model FLOPs of a step, which utilisation (MFU) is measured against.

The forward FLOPs of the two towers are the model family's own; here is how often a step computes them.
"""

from __future__ import annotations


def training_factor(freeze: tuple[str, ...], lora_rank: int) -> tuple[int, int]:
    """How often the forward FLOPs of (language model, vision tower) are computed in a training step.

    Forward once; backward twice, or once where only the way to the weights below is needed.
    """
    language = 2 if lora_rank or "language" in freeze else 3
    vision_trained = not {"vision", "merger"} <= set(freeze) and not lora_rank
    if not vision_trained and "language" in freeze:
        language = 1
    return language, 3 if vision_trained else 1
