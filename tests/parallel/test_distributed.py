"""What the start-up reads from the environment."""

import pytest

from vilasr_jax.errors import ConfigError
from vilasr_jax.parallel.distributed import explicit, on_tpu_host

GIVEN = {"VILASR_COORDINATOR": "host-0:8476", "VILASR_NUM_PROCESSES": "4", "VILASR_PROCESS_ID": "3"}


def test_nothing_set_means_alone():
    assert explicit({}) is None
    assert not on_tpu_host({"JAX_PLATFORMS": "cpu"})
    assert not on_tpu_host({"VILASR_DISTRIBUTED": "0"})


def test_the_three_variables_name_the_others():
    assert explicit(GIVEN) == {"coordinator_address": "host-0:8476", "num_processes": 4, "process_id": 3}


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"VILASR_PROCESS_ID": ""}, "VILASR_PROCESS_ID is not set"),
        ({"VILASR_PROCESS_ID": "4"}, "below VILASR_NUM_PROCESSES=4"),
        ({"VILASR_NUM_PROCESSES": "four"}, "VILASR_NUM_PROCESSES=four"),
        ({"VILASR_COORDINATOR": "host-0"}, "give HOST:PORT"),
    ],
)
def test_half_a_description_is_refused(changes, says):
    with pytest.raises(ConfigError, match=says):
        explicit({**GIVEN, **changes})
