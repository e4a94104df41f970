"""The comparison of forms of the weights with float32."""

import numpy as np
import pytest

from tests.test_conversation_settings import workdir as workdir
from vilasr_jax.bench.weights import bench_weights, difference


def test_errors_are_in_standard_deviations():
    exact = np.array([[0.0, 4.0], [4.0, 0.0], [0.0, 4.0]])
    found = difference(exact + np.array([[0.0, 0.0], [0.0, 5.0], [0.0, 0.0]]), exact, np.zeros(2, bool))
    assert found.largest == 2.5 and found.tokens == 3
    assert found.rms == pytest.approx(2.5 / np.sqrt(6)) and found.same_token == pytest.approx(2 / 3)


def test_what_is_never_sampled_is_no_greedy_token():
    exact = np.array([[1.0, 2.0, 9.0]])
    other = np.array([[2.0, 1.0, 9.0]])
    assert difference(other, exact, np.zeros(3, bool)).same_token == 1
    assert difference(other, exact, np.array([False, False, True])).same_token == 0


@pytest.mark.slow  # an engine is compiled
def test_int8_and_bf16_are_near_float32(workdir, capsys):
    found = bench_weights(str(workdir), rows=2)
    assert found["int8"]["tokens"] == found["bf16"]["tokens"] >= 2 * 9
    assert 0 < found["bf16"]["rms"] < 0.02 and found["bf16"]["rms"] < found["int8"]["rms"] < 0.2
    assert min(one["same_token"] for one in found.values()) > 0.5
    assert "same greedy token" in capsys.readouterr().out
