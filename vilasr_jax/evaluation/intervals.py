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
    """Normal interval of a mean of scores in [0, 1]; Wilson's when all are 0 or 1.

    Scores that are all the same say nothing of how they vary: see `constant_interval`.
    """
    scores = np.asarray(values, np.float64)
    if not len(scores) or np.isin(scores, (0.0, 1.0)).all():
        return wilson_interval(float(scores.sum()), len(scores), level)
    if (scores == scores[0]).all():
        return constant_interval(float(scores[0]), len(scores), 0.0, level)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    spread = z * scores.std(ddof=1) / math.sqrt(len(scores))
    return max(0.0, float(scores.mean() - spread)), min(1.0, float(scores.mean() + spread))


def constant_interval(value: float, n: int, least: float, level: float = 0.95) -> tuple[float, float]:
    """Interval of a mean of `n` scores in [least, 1] that are all `value`.

    At most a fraction of them (the upper end of Wilson's interval of 0 in n) would have another value, which
    may be any. For 0 and 1 it is Wilson's interval itself.

    >>> [round(x, 3) for x in constant_interval(0.5, 2, 0.0)]
    [0.171, 0.829]
    """
    fraction = wilson_interval(0, n, level)[1]
    return value - fraction * (value - least), value + fraction * (1 - value)


def difference_interval(
    differences: np.ndarray, everywhere: np.ndarray, level: float = 0.95
) -> tuple[float, float]:
    """Normal interval of the mean paired difference of a type's rows, in [-1, 1].

    Args:
      differences: of the type's rows; a single one has the variance of `everywhere`.
      everywhere: of all types' rows. Rows that are all the same, and not 0, have `constant_interval`.
      level: coverage.
    """
    middle, n = float(differences.mean()), len(differences)
    varied = differences if n > 1 else everywhere
    if (varied == varied[0]).all():
        return constant_interval(middle, n, -1.0, level) if varied.any() else (0.0, 0.0)
    half = NormalDist().inv_cdf(0.5 + level / 2) * float(varied.std(ddof=1)) / math.sqrt(n)
    return middle - half, middle + half


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
    elif half == 0:
        low, high = constant_interval(middle, len(questions), -1.0, level)
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
    """`second - first` on the same questions with a seeded bootstrap interval: (mean, low, high).

    Where all differences are the same the bootstrap has no width: see `difference_interval`.
    """
    difference = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    if not len(difference):
        return 0.0, 0.0, 0.0
    if (difference == difference[0]).all():
        return float(difference[0]), *difference_interval(difference, difference, level)
    generator = np.random.default_rng(seed)
    values, counts = np.unique(difference, return_counts=True)
    draws = generator.multinomial(len(difference), counts / len(difference), size=resamples)
    means = draws @ values / len(difference)
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return float(difference.mean()), float(low), float(high)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
