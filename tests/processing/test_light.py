"""The host side stays light: worker processes import it without JAX."""

import subprocess
import sys


def test_processing_imports_no_jax():
    code = "import sys, vilasr_jax.processing; print(sorted({'jax', 'flax', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
