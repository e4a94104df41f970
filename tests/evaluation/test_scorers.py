"""The published scorers against cases worked by hand from their definitions (`hand_worked_*.jsonl`)."""

import doctest
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vilasr_jax.errors import DataError
from vilasr_jax.evaluation import benchmarks
from vilasr_jax.evaluation.benchmarks import (
    SPAR_GROUPS,
    VSI_TYPES,
    benchmark_table,
    guess_benchmark,
    pass_at_k,
)
from vilasr_jax.evaluation.intervals import wilson_interval
from vilasr_jax.evaluation.scorers import READINGS, SCORERS, score_answer

HERE = Path(__file__).parent


def cases(name: str) -> list[dict]:
    return [json.loads(line) for line in (HERE / name).read_text().splitlines()]


WORKED = {"published": "hand_worked_published.jsonl", "lenient": "hand_worked_answers.jsonl"}


@pytest.mark.parametrize("reading", WORKED)
def test_every_hand_worked_answer(reading):
    worked = cases(WORKED[reading])
    wrong = [
        (case, score)
        for case in worked
        if (score := score_answer(case["said"], case["right"], case["type"], reading))
        != pytest.approx(case["score"], abs=1e-12)
    ]
    assert not wrong
    assert set(SCORERS) <= {case["type"] for case in worked}


def test_how_many_cases_were_worked_by_hand():
    assert len(cases("hand_worked_answers.jsonl")) + len(cases("hand_worked_means.jsonl")) >= 200
    assert len(cases("hand_worked_published.jsonl")) >= 80


@pytest.mark.parametrize("case", cases("hand_worked_means.jsonl"), ids=lambda case: case["why"][:40])
def test_every_hand_worked_mean(case):
    means = benchmark_table(case["benchmark"], map(tuple, case["rows"])).means
    for name, value in case["expect"].items():
        assert means[name].mean == pytest.approx(value), name
        assert 0 <= means[name].low <= value + 1e-9 and value - 1e-9 <= means[name].high <= 1


def test_unknown_kind_is_an_error():
    with pytest.raises(DataError, match="'essay' is unknown"):
        score_answer("B", "B", "essay")


@given(
    st.text(max_size=40) | st.none() | st.floats() | st.integers(),
    st.text(max_size=40),
    st.sampled_from(list(SCORERS)),
    st.sampled_from(list(READINGS)),
)
def test_any_answer_scores_between_0_and_1(said, right, kind, reading):
    assert 0 <= score_answer(said, right, kind, reading) <= 1


def test_the_types_of_the_benchmarks():
    assert len(VSI_TYPES) == 8 and sum(len(kinds) for kinds in SPAR_GROUPS.values()) == 20
    table = benchmark_table("vsi_bench", [("object_rel_direction_easy", 1.0), ("object_counting", 0.0)])
    assert list(table.means) == ["object_counting", "object_rel_direction", "overall"]
    assert guess_benchmark(["object_rel_direction_hard", "route_planning"]) == "vsi_bench"
    assert guess_benchmark(["view_change_infer"]) == "spar_bench"
    assert guess_benchmark(["MSR"]) == guess_benchmark([]) == ""


def test_intervals_of_means():
    rows = [("a", 1.0)] * 8 + [("a", 0.0)] * 2
    assert benchmark_table("maze", rows).overall.high == wilson_interval(8, 10)[1]
    one = benchmark_table("vsi_bench", [("object_counting", v) for _, v in rows]).overall
    assert (one.low, one.high) == pytest.approx(wilson_interval(8, 10))
    two = benchmark_table(
        "vsi_bench", [(kind, v) for kind in ("object_counting", "route_planning") for _, v in rows]
    ).overall
    assert two.mean == one.mean and two.high - two.low == pytest.approx((one.high - one.low) / 2**0.5)


@pytest.mark.parametrize("benchmark", ["vsi_bench", "spar_bench"])
@pytest.mark.parametrize(("unreadable", "total"), [(1, 1), (8, 1), (5, 0)])
def test_a_row_of_no_known_type_weighs_as_one_row(benchmark, unreadable, total):
    """A row that can't be read has no type: it counts as wrong, but not as much as a type of its own."""
    known = (
        [*VSI_TYPES] if benchmark == "vsi_bench" else [kind for own in SPAR_GROUPS.values() for kind in own]
    )
    rows = [(kind, 1.0) for kind in known for _ in range(100 * total)] + [("unreadable", 0.0)] * unreadable
    table = benchmark_table(benchmark, rows)
    assert table.overall.mean == pytest.approx(1 - unreadable / len(rows)) and table.overall.n == len(rows)
    assert table.overall.low - 1e-9 <= table.overall.mean <= table.overall.high
    assert table.to_dict()["unknown_types"] == ["unreadable"] and table.types["unreadable"].n == unreadable
    weights = benchmarks.row_weights(benchmark, [kind for kind, _ in rows])
    assert weights @ [score for _, score in rows] == pytest.approx(table.overall.mean)


def test_pass_at_k():
    assert [pass_at_k(4, 2, k) for k in (1, 2, 3, 4)] == pytest.approx([1 / 2, 5 / 6, 1, 1])
    assert pass_at_k(3, 0, 3) == 0.0


def test_examples_in_docstrings():
    assert doctest.testmod(benchmarks).failed == 0
