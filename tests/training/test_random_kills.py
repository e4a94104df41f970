"""Killed at 20 random moments of SFT and RL, a run ends with the bits of one that was never killed."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.training.stages_run import RL_STEPS, SFT_STEPS
from vilasr_jax.checkpoint import CheckpointStore
from vilasr_jax.errors import STOPPED
from vilasr_jax.training.stage import TIMED

ROOT = Path(__file__).parents[2]
KILLS = 20
STAGES = {"sft": SFT_STEPS, "rl": RL_STEPS}


class Run:
    """`stages_run` in one process or several; all runs of the test read one cache of compiled steps."""

    def __init__(self, folder: Path, count: int):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        env = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_ENABLE_COMPILATION_CACHE": "1",
            "JAX_COMPILATION_CACHE_DIR": str(folder.parent / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        }
        self.processes = []
        for number in range(count):
            if count > 1:
                env |= {"VILASR_COORDINATOR": f"localhost:{port}", "VILASR_NUM_PROCESSES": str(count)}
                env["VILASR_PROCESS_ID"] = str(number)
            command = [sys.executable, "-m", "tests.training.stages_run", str(folder)]
            with (folder.parent / f"{folder.name}.{number}.log").open("w") as log:
                self.processes.append(
                    subprocess.Popen(
                        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=log, text=True
                    )
                )

    @property
    def over(self) -> bool:
        """Whether any process has ended."""
        return any(process.poll() is not None for process in self.processes)

    def kill(self, rng: random.Random) -> None:
        """Ends all processes, in any order, as a power cut does."""
        for process in rng.sample(self.processes, len(self.processes)):
            process.kill()
            time.sleep(rng.choice([0, 0.05]))
        for process in self.processes:  # one that missed another before its own end has aborted
            process.communicate(timeout=60)

    def finish(self, code: int = 0) -> list[str]:
        """What each process printed; all must end with `code`."""
        said = [process.communicate(timeout=1700)[0] for process in self.processes]
        assert [process.returncode for process in self.processes] == [code] * len(said), said
        return said


def progress(folder: Path) -> int:
    """Metrics written and checkpoints begun, of both stages: it grows from 0 to `most()`."""
    reached = 0
    for stage in STAGES:
        path, saved = folder / stage / "metrics.jsonl", folder / stage / "checkpoints"
        lines = path.read_text().splitlines() if path.exists() else []
        names = [entry.name.split(".")[0] for entry in saved.iterdir()] if saved.exists() else []
        reached += max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)
        reached += max((int(name) for name in names if name.isdigit()), default=0)
    return reached


def most() -> int:
    return 2 * sum(STAGES.values())


def wait_for(folder: Path, wanted: int, run: Run) -> None:
    while progress(folder) < wanted and not run.over:
        time.sleep(0.02)


def final(folder: Path) -> dict:
    """Every parameter, optimiser state, counter and metric at the end."""
    out = {}
    for stage, steps in STAGES.items():
        found = CheckpointStore(folder / stage / "checkpoints").restore(
            steps, {"params": None, "opt_state": None, "count": None}
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(dict(found)):
            out[stage, jax.tree_util.keystr(path)] = np.asarray(leaf).tobytes()
    return out


def metrics(folder: Path) -> dict:
    lines = {stage: (folder / stage / "metrics.jsonl").read_text().splitlines() for stage in STAGES}
    return {
        stage: [{k: v for k, v in json.loads(line).items() if k not in TIMED} for line in some]
        for stage, some in lines.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_killed_at_20_random_moments(tmp_path, count):
    seed = random.randrange(1000)
    rng = random.Random(seed)
    full, broken = tmp_path / "full", tmp_path / "broken"
    Run(full, count).finish()
    assert progress(full) == most()
    moments = sorted(rng.sample(range(most() - 8), KILLS))
    print(f"seed {seed}, kills at {moments} of {most()}")
    for moment in moments:
        run = Run(broken, count)
        wait_for(broken, moment, run)
        time.sleep(rng.uniform(0, 0.15))
        assert not run.over, (run.processes[0].args, progress(broken))
        run.kill(rng)
    Run(broken, count).finish()
    assert final(broken) == final(full) and len(final(full)) > 100
    assert metrics(broken) == metrics(full)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_sigterm_loses_no_step(tmp_path, count):
    """One process gets it; all stop after the same step, which is saved."""
    rng = random.Random(count)
    full, stopped = tmp_path / "full", tmp_path / "stopped"
    Run(full, count).finish()
    for stage, moment in (("sft", SFT_STEPS // 2), ("rl", 2 * SFT_STEPS + RL_STEPS // 2)):
        run = Run(stopped, count)
        wait_for(stopped, moment, run)
        rng.choice(run.processes).send_signal(signal.SIGTERM)
        said = run.finish(STOPPED)
        step = CheckpointStore(stopped / stage / "checkpoints").latest_step()
        assert 0 < step < STAGES[stage]
        assert all(f"stopped after step {step} of {STAGES[stage]}" in words for words in said)
    Run(stopped, count).finish()
    assert final(stopped) == final(full)
