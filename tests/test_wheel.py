"""A wheel, installed into an empty folder, has the config files and runs from anywhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("hatchling")
ROOT = Path(__file__).parent.parent
STEPS = [
    f"--config.{name}=2" for name in ("cold_start.perception_steps", "cold_start.steps", "cold_start.traces")
]


@pytest.fixture(scope="module")
def vilasr(tmp_path_factory):
    """Runs the installed command in an empty folder; returns the finished process."""
    site, empty = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("empty")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, f"--target={site}", ROOT], check=True)
    env = {**os.environ, "PYTHONPATH": str(site), "JAX_PLATFORMS": "cpu"}

    def run(*words):
        command = [sys.executable, "-m", "vilasr_jax.cli", *words]
        return subprocess.run(command, cwd=empty, env=env, capture_output=True, text=True)

    run.folder = empty
    return run


@pytest.mark.parametrize("config", ["maze_tiny", "configs/maze_tiny.py", "vilasr:7b,v5e-64"])
def test_configs_are_found_from_any_folder(vilasr, config):
    done = vilasr("config", f"--config={config}")
    assert done.returncode == 0, done.stderr
    assert f"name = '{'7b' if '7b' in config else 'maze_tiny'}'" in done.stdout


def test_configs_are_listed(vilasr):
    listed = [line.split()[0] for line in vilasr("config", "--list").stdout.splitlines()]
    assert listed == sorted(path.stem for path in (ROOT / "configs").glob("*.py"))


@pytest.mark.slow
def test_the_quickstart_runs_from_a_wheel(vilasr):
    stages = "--config.stages=('cold_start','export','report')"
    words = ["--config=maze_tiny", "--workdir=run", stages, "--config.cold_start.validate_every=0", *STEPS]
    done = vilasr("train", *words)
    assert done.returncode == 0, done.stderr
    assert (vilasr.folder / "run" / "report.html").is_file() and (vilasr.folder / "run" / "hf").is_dir()
