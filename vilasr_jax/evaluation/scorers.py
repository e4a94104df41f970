"""The published scorers: one answer each, and the means of a benchmark (arXiv 2506.09965 and the
benchmarks').

They read the text of `<answer>`, take anything, and never raise. Free-form text is compared by case-folded
equality.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vilasr_jax.errors import DataError
from vilasr_jax.rewards.answers import mean_relative_accuracy, number_text, plain, read_number

VCI_AXES = (
    ("move_right", "move_left"),
    ("move_up", "move_down"),
    ("move_forward", "move_backward"),
    ("rotate_right", "rotate_left"),
    ("rotate_up", "rotate_down"),
)
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


def score_choice(prediction: Any, truth: Any) -> float:
    """1 when the first letters agree, in any case ("(b) left" and "B"); 0 for an answer without a letter."""
    said, right = _first_letter(prediction), _first_letter(truth)
    return float(said == right != "")


def score_numerical(prediction: Any, truth: Any) -> float:
    """1 when both or neither carry a decimal point and they agree after rounding to 2 places."""
    said, right = number_text(prediction), number_text(truth)
    if said is None or right is None or ("." in said) != ("." in right):
        return 0.0
    return float(round(float(said), 2) == round(float(right), 2))


def score_regression(prediction: Any, truth: Any) -> float:
    """Mean relative accuracy of the two numbers, 0 when one is missing."""
    return mean_relative_accuracy(read_number(prediction), read_number(truth))


def score_vci(prediction: Any, truth: Any) -> float:
    """View change: `move_right:0.3,rotate_left:20,...` as five signed axes, the mean of their scores."""
    said, right = _view_change(prediction), _view_change(truth)
    if said is None or right is None:
        return 0.0
    return sum(mean_relative_accuracy(a, b) for a, b in zip(said, right, strict=True)) / len(VCI_AXES)


def score_free_form(prediction: Any, truth: Any) -> float:
    """1 for the same words in any case."""
    return float(plain(prediction).casefold() == plain(truth).casefold() != "")


SCORERS = {
    "multiple choice": score_choice,
    "numerical": score_numerical,
    "regression": score_regression,
    "vci": score_vci,
    "free-form": score_free_form,
}


def score_answer(prediction: Any, truth: Any, problem_type: str) -> float:
    """Scores one answer, 0 to 1, by the row's `problem_type`; DataError names an unknown one."""
    scorer = SCORERS.get(problem_type.strip().lower().replace("_", " ").replace("free form", "free-form"))
    if scorer is None:
        raise DataError(f"problem_type {problem_type!r} is unknown; there are: {', '.join(SCORERS)}")
    return scorer(prediction, truth)


def means_by_type(rows: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Plain mean of the scores of each type, in order of first appearance."""
    scores: dict[str, list[float]] = defaultdict(list)
    for kind, value in rows:
        scores[kind].append(value)
    return {kind: _mean(values) for kind, values in scores.items()}


def vsi_scores(rows: Iterable[tuple[str, float]]) -> dict[str, float]:
    """VSI-Bench: the mean of each type and `overall`, the macro mean over them.

    The three levels of `object_rel_direction` are one type: the mean of their means. Types without rows are
    left out; a full benchmark has all eight (`VSI_TYPES`).
    """
    means = means_by_type(rows)
    levels = [means.pop(kind) for kind in list(means) if kind.startswith(VSI_DIRECTION)]
    if levels:
        means[VSI_DIRECTION] = _mean(levels)
    known = {kind: means[kind] for kind in VSI_TYPES if kind in means}
    means = known | means
    return {**means, "overall": _mean(list(means.values()))}


def spar_scores(rows: Iterable[tuple[str, float]]) -> dict[str, float]:
    """SPAR-Bench: each type, the macro means `Low`, `Medium`, `High`, and `overall` over all types."""
    means = means_by_type(rows)
    groups = {
        name: _mean([means[kind] for kind in kinds if kind in means])
        for name, kinds in SPAR_GROUPS.items()
        if any(kind in means for kind in kinds)
    }
    return {**means, **groups, "overall": _mean(list(means.values()))}


def benchmark_scores(benchmark: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means of scored rows (`original_question_type`, `score`) as the benchmark defines them."""
    pairs = [(str(row.get("original_question_type") or "all"), float(row["score"])) for row in rows]
    if benchmark.startswith("vsi"):
        return vsi_scores(pairs)
    if benchmark.startswith("spar"):
        return spar_scores(pairs)
    return {**means_by_type(pairs), "overall": _mean([value for _, value in pairs])}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _first_letter(answer: Any) -> str:
    text = plain(answer).lstrip(" ([{\"'*`").upper()
    return text[0] if text and text[0].isalpha() else ""


def _view_change(answer: Any) -> list[float] | None:
    steps: dict[str, float] = {}
    for item in plain(answer).split(","):
        name, colon, value = item.partition(":")
        number = read_number(value)
        if not colon or number is None:
            return None
        steps[name.strip().lower()] = number
    return [steps.get(plus, 0.0) - steps.get(minus, 0.0) for plus, minus in VCI_AXES]
