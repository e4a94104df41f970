import doctest

import numpy as np
import pytest

from vilasr_jax.evaluation import intervals
from vilasr_jax.evaluation.intervals import (
    mcnemar,
    mean_interval,
    paired_difference,
    seed_interval,
    wilson_interval,
)


def test_wilson_against_published_values():  # Newcombe (1998), table I, method 3
    for right, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert wilson_interval(right, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(5, 5)[1] == 1.0


def test_mean_interval():
    assert mean_interval([1, 1, 0, 1]) == wilson_interval(3, 4)
    low, high = mean_interval([0.2, 0.4, 0.6, 0.8])
    assert (low + high) / 2 == pytest.approx(0.5) and high - low == pytest.approx(
        2 * 1.96 * 0.2582 / 2, abs=1e-3
    )
    assert mean_interval([]) == (0.0, 1.0)


@pytest.mark.parametrize("value", [0.0, 0.1, 0.5, 1.0])
def test_scores_that_agree_have_an_interval_with_a_width(value):
    few, many = mean_interval([value] * 2), mean_interval([value] * 200)
    assert 0 <= few[0] <= many[0] <= value <= many[1] <= few[1] <= 1
    assert few[1] - few[0] > 0.6 and 0 < many[1] - many[0] < 0.02
    gains = [value or 0.2] * 4
    for low, high in (
        paired_difference([0.0] * 4, gains)[1:],
        seed_interval([gains]),
        seed_interval([gains] * 2),
    ):
        assert high - low > 0.2 and low <= gains[0] <= high + 1e-12


def test_mcnemar_counts_only_differences():
    assert mcnemar([1, 0] * 50, [1, 0] * 50) == 1.0
    assert mcnemar([0] * 10 + [1] * 90, [1] * 100) == pytest.approx(2 / 2**10)
    assert mcnemar([1, 0], [0, 1]) == 1.0
    assert 0 < mcnemar([0] * 3000, [1] * 3000) + 1e-300  # no overflow with many
    with pytest.raises(ValueError, match="3 and 2 questions"):
        mcnemar([1, 1, 1], [1, 1])


def test_paired_difference_is_seeded_and_brackets_the_mean():
    first, second = [0.0, 1.0, 0.0, 0.5] * 50, [1.0, 1.0, 0.0, 0.5] * 50
    mean, low, high = paired_difference(first, second)
    assert mean == 0.25 and 0.18 < low < 0.25 < high < 0.32
    assert paired_difference(first, second) == (mean, low, high)


def test_examples_in_docstrings():
    assert doctest.testmod(intervals).failed == 0


def test_intervals_over_seeds_are_students_t():
    """The three seeds of RESULTS.md: reflection and RL over the cold start."""
    cold, reflect, rl = [79.9, 82.6, 78.9], [77.1, 81.4, 78.1], [86.5, 92.2, 83.2]
    for after, want in ((rl, (0.2, 13.4)), (reflect, (-4.2, 1.0))):
        gains = [[b - a] * 99 for a, b in zip(cold, after, strict=True)]
        assert [round(x, 1) for x in seed_interval(gains)] == pytest.approx(want, abs=0.11)


def test_seeds_that_are_all_right_leave_wilsons_interval():
    assert seed_interval([[1.0] * 4] * 3) == wilson_interval(4, 4)


def test_seeds_that_agree_by_chance_leave_the_questions_interval():
    rng = np.random.default_rng(0)
    answers = (rng.random(400) < 0.8).astype(float)
    low, high = seed_interval([answers, answers, answers])
    assert (low, high) == pytest.approx(mean_interval(answers), abs=0.01)
    assert seed_interval([answers]) == wilson_interval(answers.sum(), 400)
