"""Confidence intervals of proportions and means, and paired comparison of two runs."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from scipy.special import stdtrit


def wilson_interval(right: float, n: int, level: float = 0.95) -> tuple[float, float]:
    r"""Wilson score interval of a proportion (Wilson, 1927); it stays inside [0, 1] and holds near 0 and 1.

    $$\frac{p + z^2/2n \pm z \sqrt{p(1-p)/n + z^2/4n^2}}{1 + z^2/n}$$

    Args:
      right: number of successes.
      n: number of trials; 0 gives (0, 1).
      level: coverage.

    >>> [round(x, 3) for x in wilson_interval(80, 100)]
    [0.711, 0.867]
    """
    if n <= 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p = right / n
    middle, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Normal interval of a mean of scores in [0, 1]; Wilson's when all are 0 or 1."""
    scores = np.asarray(values, np.float64)
    if not len(scores) or np.isin(scores, (0.0, 1.0)).all():
        return wilson_interval(float(scores.sum()), len(scores), level)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    spread = z * scores.std(ddof=1) / math.sqrt(len(scores)) if len(scores) > 1 else 1.0
    return max(0.0, float(scores.mean() - spread)), min(1.0, float(scores.mean() + spread))


def seed_interval(values: Sequence[Sequence[float] | np.ndarray], level: float = 0.95) -> tuple[float, float]:
    r"""Interval of a mean over training seeds, which counts that seeds differ as well as questions.

    With k seeds it is Student's $\bar x \pm t_{k-1} s / \sqrt{k}$ of the seeds' means, never narrower than
    the normal interval of the questions (each averaged over the seeds, as all of them answer the same ones).
    One seed has the questions' interval alone: Wilson's of right and wrong, a bootstrap of differences.

    Args:
      values: a score, or a paired difference of scores, for each question of each seed.
      level: coverage.

    >>> [round(x, 3) for x in seed_interval([[0.066] * 9, [0.096] * 9, [0.043] * 9])]
    [0.002, 0.134]
    """
    means = np.array([np.mean(one) for one in values])
    k, middle = len(means), float(means.mean())
    same = len({len(one) for one in values}) == 1
    questions = np.mean([*map(np.asarray, values)], axis=0) if same else np.concatenate(values)
    if k == 1 and np.isin(questions, (0.0, 1.0)).all():
        return wilson_interval(float(questions.sum()), len(questions), level)
    if k == 1:
        return paired_difference(np.zeros_like(questions), questions, level=level)[1:]
    normal, student = NormalDist().inv_cdf(0.5 + level / 2), float(stdtrit(k - 1, 0.5 + level / 2))
    half = max(
        student * float(means.std(ddof=1)) / math.sqrt(k),
        normal * float(questions.std(ddof=1)) / math.sqrt(len(questions)) if len(questions) > 1 else 0.0,
    )
    low, high = middle - half, middle + half
    if np.isin(np.concatenate(values), (0.0, 1.0)).all():  # near 0 and 1 the normal interval is too narrow
        wilson = wilson_interval(middle * len(questions), len(questions), level)
        low, high = min(low, wilson[0]), max(high, wilson[1])
    return low, high


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Exact two-sided McNemar p value: two runs, right or wrong on the same questions in the same order.

    Only questions on which they differ count; under no difference each goes either way with chance 1/2.

    >>> round(mcnemar([1, 1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0]), 6)
    0.03125
    """
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    if a.shape != b.shape:
        raise ValueError(f"the runs answered {a.size} and {b.size} questions; give the same ones to both")
    gains, losses = int((~a & b).sum()), int((a & ~b).sum())
    n, least = gains + losses, min(gains, losses)
    tail = sum(math.exp(_log_choose(n, k) - n * math.log(2)) for k in range(least + 1))
    return float(min(1.0, 2 * tail))


def paired_difference(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """`second - first` on the same questions with a seeded bootstrap interval: (mean, low, high)."""
    difference = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    if not len(difference):
        return 0.0, 0.0, 0.0
    generator = np.random.default_rng(seed)
    values, counts = np.unique(difference, return_counts=True)
    draws = generator.multinomial(len(difference), counts / len(difference), size=resamples)
    means = draws @ values / len(difference)
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return float(difference.mean()), float(low), float(high)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
