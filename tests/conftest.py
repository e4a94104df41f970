"""Settings of every test: eight virtual CPU devices, so that meshes of 1, 2 and 8 fit in one process;
property tests have no deadline, which a busy machine would miss."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "0")  # not the cache of who runs the tests

import jax
from hypothesis import settings

from tests.browser import browser as browser

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_disable_most_optimizations", True)  # compilation is slower than running here

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
