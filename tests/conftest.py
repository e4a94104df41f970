"""Settings of every test: eight virtual CPU devices, so that meshes of 1, 2 and 8 fit in one process."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

from tests.browser import browser as browser

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_disable_most_optimizations", True)  # compiling takes longer than running here
