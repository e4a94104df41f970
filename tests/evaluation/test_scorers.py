import pytest
from hypothesis import given
from hypothesis import strategies as st

from vilasr_jax.errors import DataError
from vilasr_jax.evaluation.scorers import (
    SCORERS,
    SPAR_GROUPS,
    VSI_TYPES,
    benchmark_scores,
    score_answer,
    spar_scores,
    vsi_scores,
)

VIEW = "move_right:0.3,rotate_left:20"

# Worked by hand: kind, what the model answered, the right answer, the score.
CASES = [
    ("multiple choice", "B", "B", 1),
    ("multiple choice", "b", "B", 1),
    ("multiple choice", "B.", "B", 1),
    ("multiple choice", "(B) left of it", "B", 1),
    ("multiple choice", " B", "<answer>B</answer>", 1),
    ("multiple choice", "C", "B", 0),
    ("multiple choice", "2", "B", 0),
    ("multiple choice", "", "B", 0),
    ("multiple choice", None, "B", 0),
    ("multiple choice", "", "", 0),
    ("numerical", "3", "3", 1),
    ("numerical", "3 chairs", "3", 1),
    ("numerical", "03", "3", 1),
    ("numerical", "3.", "3", 1),
    ("numerical", "3.0", "3", 0),
    ("numerical", "3", "3.0", 0),
    ("numerical", "3.004", "3.0", 1),
    ("numerical", "3.01", "3.0", 0),
    ("numerical", "-3", "3", 0),
    ("numerical", "1,234", "1234", 1),
    ("numerical", "1,234.50 m", "1234.5", 1),
    ("numerical", "three", "3", 0),
    ("numerical", "about 3", "3", 0),
    ("numerical", "", "3", 0),
    ("numerical", None, "3", 0),
    ("regression", "10", "10", 1.0),
    ("regression", "9.5", "10", 1.0),  # off by 5 %: exactly at the strictest threshold, and <= holds
    ("regression", "10.5", "10", 1.0),
    ("regression", "9.4", "10", 0.9),
    ("regression", "9", "10", 0.9),
    ("regression", "8", "10", 0.7),
    ("regression", "7.5", "10", 0.6),
    ("regression", "5", "10", 0.1),
    ("regression", "15", "10", 0.1),
    ("regression", "4.99", "10", 0.0),
    ("regression", "-10", "10", 0.0),
    ("regression", "9 m", "10", 0.9),
    ("regression", "1,100", "1000", 0.9),
    ("regression", "nine", "10", 0.0),
    ("regression", "nan", "10", 0.0),
    ("regression", "inf", "10", 0.0),
    ("regression", "", "10", 0.0),
    ("regression", None, "10", 0.0),
    ("regression", "10", "", 0.0),
    ("regression", "0", "0", 1.0),
    ("regression", "0.1", "0", 0.9),  # no relative error to 0: the absolute one
    ("regression", "2", "0", 0.0),
    ("vci", VIEW, VIEW, 1.0),
    ("vci", "rotate_left:20, move_right:0.3", VIEW, 1.0),
    ("vci", "Move_Right: 0.3,rotate_left:20", VIEW, 1.0),
    ("vci", "move_right:0.3,rotate_right:20", VIEW, 0.8),  # one of five axes has the wrong sign
    ("vci", "move_left:-0.3,rotate_left:20", VIEW, 1.0),
    ("vci", "move_right:0.27,rotate_left:20", VIEW, 0.98),
    ("vci", "move_right:0.3,rotate_left:20,move_up:0.2", VIEW, 0.94),  # 0.2 where nothing moved: 7 of 10
    ("vci", "move_right:0.3", VIEW, 0.8),
    ("vci", "turn around", VIEW, 0.0),
    ("vci", "move_right:far,rotate_left:20", VIEW, 0.0),
    ("vci", "", VIEW, 0.0),
    ("vci", None, VIEW, 0.0),
    ("free-form", "Left", "left ", 1),
    ("free-form", "left side", "left", 0),
    ("free-form", "", "", 0),
]


@pytest.mark.parametrize(("kind", "said", "right", "want"), CASES)
def test_hand_worked_cases(kind, said, right, want):
    assert score_answer(said, right, kind) == pytest.approx(want, abs=1e-12)


def test_unknown_kind_is_told():
    with pytest.raises(DataError, match="'essay' is unknown"):
        score_answer("B", "B", "essay")
    assert score_answer("B", "B", "multiple_choice") == 1


@given(
    st.text(max_size=40) | st.none() | st.floats() | st.integers(),
    st.text(max_size=40),
    st.sampled_from(list(SCORERS)),
)
def test_any_answer_scores_between_0_and_1(said, right, kind):
    assert 0 <= score_answer(said, right, kind) <= 1


def test_vsi_is_a_macro_mean_with_directions_merged():
    rows = [("object_counting", 1.0)] * 9 + [("object_counting", 0.0)]  # .9
    rows += [("object_rel_direction_easy", 1.0)] * 4  # 1.0
    rows += [("object_rel_direction_medium", 0.5)] * 2 + [
        ("object_rel_direction_hard", 0.0)
    ]  # mean of levels .5
    rows += [("route_planning", 0.1)]
    got = vsi_scores(rows)
    assert got["object_rel_direction"] == pytest.approx(0.5) and "object_rel_direction_easy" not in got
    assert got["overall"] == pytest.approx((0.9 + 0.5 + 0.1) / 3)
    assert list(got) == ["object_counting", "object_rel_direction", "route_planning", "overall"]
    assert len(VSI_TYPES) == 8 and vsi_scores([])["overall"] == 0.0


def test_spar_is_a_macro_mean_over_types_in_three_groups():
    rows = [("depth_prediction_oc", 0.2)] * 5 + [("distance_prediction_oo_mv", 0.6)]
    rows += [("view_change_infer", 0.4), ("spatial_imagination_oo", 1.0), ("spatial_imagination_oo", 0.0)]
    got = spar_scores(rows)
    assert (got["Low"], got["Medium"], got["High"]) == (pytest.approx(0.4), 0.4, 0.5)
    assert got["overall"] == pytest.approx((0.2 + 0.6 + 0.4 + 0.5) / 4)
    assert sum(len(kinds) for kinds in SPAR_GROUPS.values()) == 20


def test_other_benchmarks_are_plain_means():
    rows = [{"original_question_type": "a", "score": 1}] * 3 + [{"original_question_type": "b", "score": 0}]
    assert benchmark_scores("mmsi_bench", rows) == {"a": 1.0, "b": 0.0, "overall": 0.75}
    assert benchmark_scores("vsi_bench", rows)["overall"] == 0.5
    assert benchmark_scores("maze", [{"score": 1.0}]) == {"all": 1.0, "overall": 1.0}
