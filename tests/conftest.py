"""Settings of every test: eight virtual CPU devices, so that meshes of 1, 2 and 8 fit in one process;
property tests have no deadline, which a busy machine would miss."""

import os
import signal

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "0")  # not the cache of who runs the tests

import jax
import pytest
from hypothesis import settings

from tests.browser import browser as browser

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_disable_most_optimizations", True)  # compilation is slower than running here

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(autouse=True)
def signals_as_before():
    """A command that a test runs here sets how the process answers signals."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
