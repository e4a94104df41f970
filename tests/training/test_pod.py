"""Several processes on this machine reproduce what one does, for SFT and GRPO."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vilasr_jax.parallel.hosts import SMALL
from vilasr_jax.training.stage import TIMED

ROOT = Path(__file__).parents[2]
STEPS = 3  # supervised ones, of each kind


def run(folder: Path, count: int) -> None:
    """Runs `pod_run` in `count` processes."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    runs = []
    for number in range(count):
        env = {**os.environ, "JAX_PLATFORMS": "cpu", "VILASR_NUM_PROCESSES": str(count)}
        if count > 1:
            env |= {"VILASR_COORDINATOR": f"localhost:{port}", "VILASR_PROCESS_ID": str(number)}
        else:
            del env["VILASR_NUM_PROCESSES"]
        command = [sys.executable, "-m", "tests.training.pod_run", str(folder)]
        runs.append(subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True))
    errors = [process.communicate(timeout=1700)[1] for process in runs]
    for process, error in zip(runs, errors, strict=True):
        assert process.returncode == 0, error[-3000:]


def lines(folder: Path) -> list[dict]:
    found = [folder / part / "metrics.jsonl" for part in ("padded/sft", "packed/sft", "packed/rl")]
    read = [json.loads(line) for path in found for line in path.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMED} for line in read]


@pytest.mark.slow
def test_two_and_four_processes_give_what_one_gives(tmp_path):
    run(tmp_path / "1", 1)
    with np.load(tmp_path / "1" / "params.npz") as file:
        first = [file[name] for name in file.files]
    for count in (2, 4):
        run(tmp_path / str(count), count)
        with np.load(tmp_path / str(count) / "params.npz") as file:
            for one, other in zip(first, [file[name] for name in file.files], strict=True):
                np.testing.assert_allclose(other, one, atol=1e-5)
        for one, other in zip(lines(tmp_path / "1"), lines(tmp_path / str(count)), strict=True):
            assert one.keys() == other.keys()
            for name, value in one.items():
                np.testing.assert_allclose(other[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
        sent = json.loads((tmp_path / str(count) / "sent.json").read_text())
        # Small gathers alone: one per supervised step, and a few as stages begin and save.
        assert sent["sft"].count(SMALL + 8) == len(sent["sft"]) <= 2 * STEPS + 10
        assert (
            count * sum(sent["rl"]) / 2 < 16 * 14_000
        )  # of a step's 16 conversations less than a picture each
