"""Scores of answered questions: accuracy, drawings and corrections."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vilasr_jax.drawing import metric_sums
from vilasr_jax.evaluation.benchmarks import pass_at_k
from vilasr_jax.evaluation.intervals import mean_interval
from vilasr_jax.rollout import Trajectory


def score_all(trajectories: Sequence[Trajectory], reward: Callable[[Trajectory], dict[str, float]]) -> None:
    """Computes every trajectory's reward and stores its parts in it."""
    for trajectory in trajectories:
        trajectory.reward = reward(trajectory)


def summarize(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Accuracy with its 95 % interval over questions, and means of drawings and corrections.

    `lines` are those of `results.jsonl`, or `figures` of trajectories. With several samples per question,
    `accuracy` is their mean, `samples` their number, and `pass_at_k` the chance that k of them hold a right
    one, for k = 1, 2, 4, ...
    """
    right: dict[str, list[bool]] = defaultdict(list)
    for line in lines:
        right[line["id"]].append(bool(line["correct"]))
    fractions = [float(np.mean(own)) for own in right.values()]

    drawing = metric_sums([line["drawing"] for line in lines])

    def mean(value: Callable[[Mapping[str, Any]], float]) -> float:
        return float(np.mean([value(line) for line in lines]))

    return {
        "accuracy": float(np.mean(fractions)),
        "ci95": list(mean_interval(fractions)),
        "n": len(fractions),
        "drawings": mean(lambda line: line["drawings"]),
        "drew": mean(lambda line: line["drawings"] > 0),
        "corrected": mean(lambda line: line["corrected"] > 0),
        "errors": mean(lambda line: line["errors"]),
        "tokens": mean(lambda line: line["tokens"]),
        "format": mean(lambda line: line["reward"]["format"]),
        "drawing": {name: total / count for name, (total, count) in drawing.items()},
        **sample_scores(list(right.values())),
    }


def sample_scores(right: Sequence[Sequence[bool]]) -> dict[str, Any]:
    """`samples` and `pass_at_k` of questions answered several times; nothing for one sample each."""
    samples = min(map(len, right))
    if samples < 2:
        return {}
    ks = [k for k in (2**i for i in range(20)) if k < samples] + [samples]
    passed = {k: float(np.mean([pass_at_k(len(own), sum(own), k) for own in right])) for k in ks}
    return {"samples": samples, "pass_at_k": {str(k): value for k, value in passed.items()}}
