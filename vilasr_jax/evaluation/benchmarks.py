"""The means of a benchmark as published: by question type, by group, and overall, with 95 % intervals.

They are computed as in ViLaSR's evaluation (arXiv 2506.09965), with whose results they are compared:

- VSI-Bench (arXiv 2412.14171): the macro mean over its eight types. The three levels of
  `object_rel_direction` are one type whose questions are pooled (VSI-Bench's own code: the mean of the three
  means).
- SPAR-Bench (arXiv 2503.22976): the macro mean over its types. The groups Low, Medium and High pool the
  questions of their types (SPAR-Bench's own code computes the mean of the types' means).
- All others: the mean over rows, and each type's own.

Types without rows are left out. Rows of a type that VSI-Bench or SPAR-Bench does not have (a row that can't
be read has none) are not in the macro mean: each weighs in the overall mean as one row of all.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vilasr_jax.evaluation.intervals import mean_interval

VSI_DIRECTION = "object_rel_direction"
VSI_TYPES = (
    "object_counting",
    "object_abs_distance",
    "object_size_estimation",
    "room_size_estimation",
    "object_rel_distance",
    VSI_DIRECTION,
    "route_planning",
    "obj_appearance_order",
)
SPAR_GROUPS: dict[str, tuple[str, ...]] = {
    "Low": (
        "depth_prediction_oc",
        "depth_prediction_oo",
        "distance_prediction_oc",
        "distance_prediction_oo",
        "depth_prediction_oc_mv",
        "depth_prediction_oo_mv",
        "distance_prediction_oc_mv",
        "distance_prediction_oo_mv",
    ),
    "Medium": ("view_change_infer", "position_matching", "camera_motion_infer"),
    "High": (
        "obj_spatial_relation_oo",
        "obj_spatial_relation_oc_mv",
        "obj_spatial_relation_oo_mv",
        "spatial_imagination_oc",
        "spatial_imagination_oo",
        "spatial_imagination_oc_mv",
        "spatial_imagination_oo_mv",
        "distance_infer_center_oo",
        "distance_infer_center_oo_mv",
    ),
}


@dataclass(frozen=True)
class Mean:
    """A mean score (0 to 1) of `n` rows with its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        """The entry of `scores.json`."""
        return {"mean": self.mean, "ci95": [self.low, self.high], "n": self.n}


@dataclass(frozen=True)
class BenchmarkTable:
    """A benchmark's means: `overall`, and by name those of its groups (SPAR-Bench) and types."""

    benchmark: str
    overall: Mean
    groups: Mapping[str, Mean]
    types: Mapping[str, Mean]

    @property
    def means(self) -> dict[str, Mean]:
        """Types, groups and "overall" by name, in the order of a table."""
        return {**self.types, **self.groups, "overall": self.overall}

    def to_dict(self) -> dict[str, Any]:
        """The entry of `scores.json`."""
        parts = {"groups": self.groups, "types": self.types}
        named = {part: {name: m.to_dict() for name, m in means.items()} for part, means in parts.items()}
        unknown = {"unknown_types": self.unknown_types} if self.unknown_types else {}
        return {"benchmark": self.benchmark, "overall": self.overall.to_dict(), **named, **unknown}

    @property
    def unknown_types(self) -> list[str]:
        """Types of the rows that the benchmark does not have."""
        return [kind for kind in self.types if not _is_known(self.benchmark, kind)]


def is_typed(benchmark: str) -> bool:
    """Whether a benchmark's overall score is a mean over its question types."""
    return benchmark.lower().startswith(("vsi", "spar"))


def benchmark_table(benchmark: str, rows: Iterable[tuple[str, float]]) -> BenchmarkTable:
    """The means of scored rows, each (question type, score of 0 to 1); rows without a type have "".

    >>> table = benchmark_table("vsi_bench", [("object_counting", 1.0)] * 3 + [("route_planning", 0.0)])
    >>> table.overall.mean
    0.5
    """
    scores: dict[str, list[float]] = defaultdict(list)
    for kind, value in rows:
        scores[type_name(benchmark, kind)].append(value)
    types = {kind: _mean(values) for kind, values in scores.items()}
    others = [value for kind, own in scores.items() if not _is_known(benchmark, kind) for value in own]
    known = [mean for kind, mean in types.items() if _is_known(benchmark, kind)]
    if benchmark.lower().startswith("vsi"):
        types = {kind: types[kind] for kind in VSI_TYPES if kind in types} | types
        return BenchmarkTable(benchmark, _macro(known, others), {}, types)
    if benchmark.lower().startswith("spar"):
        groups = {
            name: _mean([value for kind in kinds for value in scores.get(kind, ())])
            for name, kinds in SPAR_GROUPS.items()
            if any(kind in types for kind in kinds)
        }
        return BenchmarkTable(benchmark, _macro(known, others), groups, types)
    overall = _mean([value for values in scores.values() for value in values])
    return BenchmarkTable(benchmark, overall, {}, types if set(types) != {""} else {})


def row_weights(benchmark: str, kinds: Sequence[str]) -> np.ndarray:
    """[n] float64, what each row of these types counts in the benchmark's overall score; they sum to 1."""
    if not is_typed(benchmark):
        return np.full(len(kinds), 1 / len(kinds))
    names = [type_name(benchmark, kind) for kind in kinds]
    counts = Counter(name for name in names if _is_known(benchmark, name))
    fraction = counts.total() / len(names)
    return np.array([fraction / (len(counts) * counts[n]) if n in counts else 1 / len(names) for n in names])


def type_name(benchmark: str, kind: str) -> str:
    """The type that a row's question type counts under: VSI-Bench's three levels of direction are one."""
    merged = benchmark.lower().startswith("vsi") and kind.startswith(VSI_DIRECTION)
    return VSI_DIRECTION if merged else kind


def _is_known(benchmark: str, name: str) -> bool:
    """Whether a benchmark has a type (see `type_name`), where its overall score is a mean over types."""
    if benchmark.lower().startswith("vsi"):
        return name in VSI_TYPES
    return not is_typed(benchmark) or any(name in kinds for kinds in SPAR_GROUPS.values())


def guess_benchmark(kinds: Iterable[str]) -> str:
    """The benchmark to whose types all of `kinds` belong; "" for none."""
    found = set(kinds)
    if found and all(kind in VSI_TYPES or kind.startswith(VSI_DIRECTION) for kind in found):
        return "vsi_bench"
    if found and found <= {kind for kinds in SPAR_GROUPS.values() for kind in kinds}:
        return "spar_bench"
    return ""


def pass_at_k(samples: int, right: int, k: int) -> float:
    r"""Chance that `k` of a question's samples, drawn without return, hold a right one (arXiv 2107.03374):

    $$1 - \binom{n - c}{k} / \binom{n}{k}$$

    >>> round(pass_at_k(4, 1, 2), 3)
    0.5
    """
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def _mean(values: Sequence[float]) -> Mean:
    if not values:
        return Mean(0.0, 0.0, 1.0, 0)
    return Mean(sum(values) / len(values), *mean_interval(values), len(values))


def _macro(types: Sequence[Mean], others: Sequence[float]) -> Mean:
    """The mean of independent types' means; its interval joins theirs (Zou and Donner, 2008).

    `others` are the scores of rows without a known type, each of which weighs as one row of all.
    """
    if not types:
        return _mean(others)
    n = sum(part.n for part in types) + len(others)
    parts = [(1 / len(types) * (1 - len(others) / n), part) for part in types]
    if others:
        parts.append((len(others) / n, _mean(others)))
    mean = sum(weight * part.mean for weight, part in parts)
    below = math.hypot(*[weight * (part.mean - part.low) for weight, part in parts])
    above = math.hypot(*[weight * (part.high - part.mean) for weight, part in parts])
    return Mean(mean, max(0.0, mean - below), min(1.0, mean + above), n)
