"""Compiled programs on several hosts: a restart compiles nothing again, on any of them."""

import os
import subprocess
import sys

import pytest

from tests.launch.fake_cloud import ROOT

PROGRAM = """
import jax, numpy as np
for name in ("min_compile_time_secs", "min_entry_size_bytes"):
    jax.config.update(f"jax_persistent_cache_{name}", 0)
jax.config.update("jax_compilation_cache_dir", "CACHE")
from vilasr_jax.parallel import join
join()
seen = []
jax.monitoring.register_event_listener(lambda name, **_: seen.append(name))
row = jax.device_put(np.ones((5, 5), np.float32), jax.local_devices()[0])
jax.jit(lambda x: (x @ x).sum()).lower(row).compile()
count = {k: sum(name.endswith(f"compilation_cache/cache_{k}") for name in seen) for k in ("hits", "misses")}
print(jax.process_index(), count, flush=True)
jax.distributed.shutdown()
"""


@pytest.mark.slow
def test_every_host_finds_its_own_programs_after_a_restart(tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "program.py").write_text(PROGRAM.replace("CACHE", f"{tmp_path}/cache"))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "1"}

    def run():
        done = subprocess.run(
            ["bash", "launch/local_pod.sh", "2", sys.executable, str(tmp_path / "program.py")],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return sorted(line for line in done.stdout.splitlines() if "hits" in line)

    assert run() == ["[0] 0 {'hits': 0, 'misses': 1}", "[1] 1 {'hits': 0, 'misses': 1}"]
    assert run() == ["[0] 0 {'hits': 1, 'misses': 0}", "[1] 1 {'hits': 1, 'misses': 0}"]
