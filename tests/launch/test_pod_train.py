"""A training run in two processes: one is killed, the pod ends with a message, a restart resumes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vilasr_jax.training.stage import TIMED

ROOT = Path(__file__).parents[2]


def start(workdir):
    words = ["--config=tests/training/kill_config.py", f"--workdir={workdir}", "--config.mesh.cpu_devices=1"]
    return subprocess.Popen(
        ["bash", "launch/local_pod.sh", "2", sys.executable, "-m", "vilasr_jax.cli", "sft", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def process(pod, number):
    """The pid of the pod's process `number`."""
    wanted = f"VILASR_PROCESS_ID={number}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pod.pid and wanted in (folder / "environ").read_bytes().split(b"\0"):
                return folder.name
        except (OSError, ValueError):
            continue
    raise AssertionError(f"process {number} is not there")


def metrics(workdir):
    lines = (workdir / "cold_start" / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMED} for line in lines]


@pytest.mark.slow
def test_a_killed_process_ends_the_run_and_a_restart_resumes(tmp_path):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    run = start(unbroken)
    _, err = run.communicate(timeout=1500)
    assert run.returncode == 0, err[-3000:]

    run = start(broken)
    while not list(broken.glob("cold_start/checkpoints/[0-9]*")) and run.poll() is None:
        time.sleep(0.1)
    assert run.poll() is None, "the run ended before it could be killed"
    began = time.monotonic()
    subprocess.run(["kill", "-KILL", process(run, 1)], check=True)
    _, err = run.communicate(timeout=120)
    assert run.returncode != 0 and time.monotonic() - began < 60
    assert "process 1 of 2 ended with code 137" in err and "run the same command again" in err

    run = start(broken)
    _, err = run.communicate(timeout=1500)
    assert run.returncode == 0, err[-3000:]
    assert metrics(broken) == metrics(unbroken)
