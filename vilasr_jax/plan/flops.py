"""The FLOPs that a step's mathematics needs: what utilisation is measured against.

The forward FLOPs of the two towers are the model family's own; here is how often a step spends them.
"""

from __future__ import annotations


def training_factor(freeze: tuple[str, ...], lora_rank: int) -> tuple[int, int]:
    """How often the forward FLOPs of (language model, vision tower) are spent in a training step.

    Forward once; backward twice, or once where only the way to the weights below is needed.
    """
    language = 2 if lora_rank or "language" in freeze else 3
    vision_trained = not {"vision", "merger"} <= set(freeze) and not lora_rank
    if not vision_trained and "language" in freeze:
        language = 1
    return language, 3 if vision_trained else 1
