"""What the start-up reads from the environment, and what it says when nobody answers."""

import os
import socket
import time

import jax
import pytest

from vilasr_jax.errors import ConfigError
from vilasr_jax.parallel import check_devices, join
from vilasr_jax.parallel import devices as device_module
from vilasr_jax.parallel.distributed import ANSWER_SECONDS, explicit, on_tpu_host, wait_for_coordinator

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
        ({"VILASR_COORDINATOR": ":8476"}, "give HOST:PORT"),
        ({"VILASR_COORDINATOR": "host-0:99999"}, "give HOST:PORT"),
        ({"VILASR_COORDINATOR": "::1:8476"}, r"brackets around IPv6, as in \[::1\]:8476"),
    ],
)
def test_half_a_description_is_refused(changes, says):
    with pytest.raises(ConfigError, match=says):
        explicit({**GIVEN, **changes})


def test_a_coordinator_that_does_not_answer_is_named_in_time():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        wait_for_coordinator(f"127.0.0.1:{port}", 1, 5)
    began = time.monotonic()
    for address, process in (
        (f"127.0.0.1:{port}", 1),
        ("no-such-host.invalid:8476", 1),
        ("no-such-host.invalid:8476", 0),
    ):
        with pytest.raises(ConfigError, match=rf"{address} does not answer within 0.4 seconds \(\w+"):
            wait_for_coordinator(address, process, 0.4)
    assert time.monotonic() - began < 10 and ANSWER_SECONDS < 25
    wait_for_coordinator("[::1]:8476", 0, 1)


def test_joining_reports_one_line(monkeypatch):
    def fail(**_):
        raise RuntimeError("DEADLINE_EXCEEDED:\n only 1 of 4")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: False)
    given = {**GIVEN, "VILASR_COORDINATOR": "127.0.0.1:1", "VILASR_PROCESS_ID": "0"}
    with pytest.raises(ConfigError, match=r"did not find each other .*only 1 of 4"):
        join(given)
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:1 does not answer within 0\.2 seconds"):
        join({**given, "VILASR_PROCESS_ID": "3", "VILASR_START_SECONDS": "0.2"})
    with pytest.raises(ConfigError, match="VILASR_START_SECONDS=soon"):
        join({**given, "VILASR_START_SECONDS": "soon"})


def test_an_unknown_xla_flag_is_named():
    environ = {**os.environ, "JAX_PLATFORMS": "cpu"}
    check_devices({**environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"})
    with pytest.raises(ConfigError, match=r"XLA_FLAGS: .* no flag --xla_no_such_flag=1; "):
        check_devices({**environ, "XLA_FLAGS": "--xla_no_such_flag=1"})


def test_a_platform_without_a_device_is_named(monkeypatch):
    check_devices({"JAX_PLATFORMS": "cpu"})
    monkeypatch.setattr(device_module, "has_tpu", lambda: False)
    with pytest.raises(ConfigError, match=r"JAX_PLATFORMS=tpu finds no device .*unset JAX_PLATFORMS"):
        check_devices({"JAX_PLATFORMS": "tpu"})
    monkeypatch.setattr(device_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"JAX_PLATFORMS=cuda finds no device .*jax.cuda13"):
        check_devices({"JAX_PLATFORMS": "cuda"})
    for error in (RuntimeError("Unable to\ninitialize"), AssertionError()):

        def fail(error=error):
            raise error

        monkeypatch.setattr(jax, "devices", fail)
        with pytest.raises(ConfigError, match=r"no device .(Unable to initialize|AssertionError)"):
            check_devices({"JAX_PLATFORMS": "nonsense"})
