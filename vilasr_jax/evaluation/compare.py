"""Several runs on the same questions in one table, with paired significance against the first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from vilasr_jax.errors import DataError
from vilasr_jax.evaluation.benchmarks import (
    SPAR_GROUPS,
    VSI_DIRECTION,
    benchmark_table,
    is_typed,
    row_weights,
    type_name,
)
from vilasr_jax.evaluation.intervals import difference_interval, mcnemar
from vilasr_jax.evaluation.score_file import ScoredRun

FLIPS = 10_000


def compare(runs: Sequence[ScoredRun]) -> dict[str, Any]:
    """Means of every run on the questions that all of them answered, and differences to the first.

    Returns:
      {"benchmark", "runs": [labels], "n", "left_out": questions that not all runs have, "rows": [{"name",
      "n", "means": [a run], "differences": [a run after the first: {"mean", "ci95", "p"}]}]}; rows are the
      benchmark's types, groups and overall.

    Raises:
      DataError: fewer than two runs, or no question that all of them answered.
    """
    if len(runs) < 2:
        raise DataError("give at least two results files to compare")
    means = [run.means for run in runs]
    keys = [key for key in means[0] if all(key in own for own in means)]
    if not keys:
        raise DataError(f"{runs[0].label} and {runs[1].label} answer no common question")
    benchmark = next((run.benchmark for run in runs if run.benchmark), "")
    kinds = [runs[0].types[key] for key in keys]
    scores = np.array([[own[key] for key in keys] for own in means])
    tables = [benchmark_table(benchmark, zip(kinds, own.tolist(), strict=True)).means for own in scores]
    rows = []
    for name in tables[0]:
        members = [at for at, kind in enumerate(kinds) if _belongs(kind, name)]
        some = [kinds[at] for at in members]
        first, *others = scores[:, members]
        means_of = "" if name in SPAR_GROUPS else benchmark  # groups are pooled
        weights = row_weights(means_of, some)
        strata = [type_name(means_of, kind) if is_typed(means_of) else "" for kind in some]
        rows.append(
            {
                "name": name,
                "n": len(members),
                "means": [table[name].mean for table in tables],
                "differences": [_difference(first, own, weights, strata) for own in others],
            }
        )
    everything = set().union(*means)
    return {
        "benchmark": benchmark,
        "runs": [run.label for run in runs],
        "n": len(keys),
        "left_out": len(everything) - len(keys),
        "rows": rows,
    }


def _belongs(kind: str, name: str) -> bool:
    if name == "overall":
        return True
    if name == VSI_DIRECTION:
        return kind.startswith(VSI_DIRECTION)
    return kind in SPAR_GROUPS[name] if name in SPAR_GROUPS else kind == name


def _difference(
    first: np.ndarray, second: np.ndarray, weights: np.ndarray, strata: Sequence[str]
) -> dict[str, Any]:
    r"""The weighted mean $\sum_i w_i d_i$ of paired differences, its 95 % interval and p value.

    The interval joins those of the strata (see `difference_interval`), which are the types where the mean is
    one over types, and else one. The p value is exact (McNemar) where
    rows weigh the same and are right or wrong; else that of 10,000 seeded flips of the differences' signs.
    """
    difference = second - first
    mean = float(weights @ difference)
    below = above = 0.0
    for stratum in sorted(set(strata)):
        own = np.array([name == stratum for name in strata])
        low, high = difference_interval(difference[own], difference)
        weight, middle = float(weights[own].sum()), float(difference[own].mean())
        below = math.hypot(below, weight * (middle - low))
        above = math.hypot(above, weight * (high - middle))
    plain = np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all()
    if plain and np.allclose(weights, weights[0]):
        p = mcnemar(first == 1, second == 1)
    else:
        p = sign_flip_p(weights * difference)
    return {"mean": mean, "ci95": [mean - below, mean + above], "p": p}


def sign_flip_p(differences: np.ndarray, flips: int = FLIPS, seed: int = 0) -> float:
    """Two-sided p value of a sum of paired differences: how often random signs give one as far from 0.

    >>> sign_flip_p(np.zeros(5))
    1.0
    """
    moved = differences[differences != 0]
    reached, rng = 0, np.random.default_rng(seed)
    bound = abs(moved.sum()) - 1e-12
    for at in range(0, flips, 500):
        signs = rng.integers(0, 2, (min(500, flips - at), len(moved)), np.int8) * 2 - 1
        reached += int((np.abs(signs @ moved) >= bound).sum())
    return (reached + 1) / (flips + 1) if len(moved) else 1.0
