"""Advantages of grouped samples, by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def grpo(grouped: np.ndarray) -> np.ndarray:
    """(reward - mean) / (std + 1e-6), std with n - 1 (GRPO, arXiv 2402.03300, as published)."""
    if grouped.shape[1] == 1:
        return np.zeros_like(grouped)
    return dr_grpo(grouped) / (grouped.std(axis=1, keepdims=True, ddof=1) + np.float32(1e-6))


def dr_grpo(grouped: np.ndarray) -> np.ndarray:
    """reward - mean: no division that favours questions of little variance (Dr. GRPO, arXiv 2503.20783)."""
    return grouped - grouped.mean(axis=1, keepdims=True)


def rloo(grouped: np.ndarray) -> np.ndarray:
    """reward - mean of the other samples (RLOO, arXiv 2402.14740)."""
    n = grouped.shape[1]
    return dr_grpo(grouped) * np.float32(n / max(n - 1, 1))


ADVANTAGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"grpo": grpo, "dr_grpo": dr_grpo, "rloo": rloo}


def group_advantages(rewards: np.ndarray, group: int, name: str = "grpo") -> np.ndarray:
    """Advantages inside each group.

    Args:
      rewards: [n * group], samples of a question side by side.
      group: samples per question.
      name: a key of `ADVANTAGES`.

    Returns:
      [n * group] float32; exactly 0 where all rewards of a group are equal.

    >>> group_advantages(np.array([1.0, 0.0, 0.5, 0.5]), 2).round(3).tolist()
    [0.7070000171661377, -0.7070000171661377, 0.0, 0.0]
    >>> group_advantages(np.array([1.0, 0.0, 0.0]), 3, "rloo").round(3).tolist()
    [1.0, -0.5, -0.5]
    """
    grouped = np.asarray(rewards, np.float32).reshape(-1, group)
    equal = np.ptp(grouped, axis=1, keepdims=True) == 0
    return np.where(equal, np.float32(0), ADVANTAGES[name](grouped)).reshape(-1)
