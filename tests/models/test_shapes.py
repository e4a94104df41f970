"""The shapes in signatures are those of the arrays."""

import json
import os
import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).with_name("shapes_run.py")


def test_annotated_shapes_are_those_of_the_arrays():
    """Every function of `models`, `losses` and `sampling` that names shapes is called, and checked."""
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join([str(RUN.parents[2])])}
    done = subprocess.run([sys.executable, RUN], capture_output=True, text=True, env=env, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == []
