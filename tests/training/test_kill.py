"""A run killed in every stage ends with the same bits as one that was never killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from vilasr_jax.checkpoint import CheckpointStore
from vilasr_jax.tasks.importers import import_data
from vilasr_jax.training.stage import TIMED
from vilasr_jax.training.trajectory_dataset import TIMING

ROOT = Path(__file__).parents[2]
STAGES = ("cold_start/perception", "cold_start", "reflect", "rl")
# What must be there before a run is killed, one run after another.
MOMENTS = (
    "tokenizer*",
    "cold_start/perception/checkpoints/*",
    "cold_start/checkpoints/*",
    "reflect/samples/*.json",
    "reflect/checkpoints/*",
    "rl/checkpoints/*",
    "traces/*.json",
    "eval/*/images",
    "eval/cold_start/results.jsonl",
    "eval/rl/maze/results.jsonl",
)


def start(workdir: Path) -> subprocess.Popen:
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    words = ["--config=tests/training/kill_config.py", f"--workdir={workdir}"]
    words.append(f"--config.data.benchmarks=('{workdir.parent / 'maze'}',)")
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.kill_run", "train", *words],
        cwd=ROOT,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(run: subprocess.Popen) -> None:
    _, err = run.communicate(timeout=1500)
    assert run.returncode == 0, err[-3000:]


def final_bits(workdir: Path) -> dict:
    out = {}
    for stage in STAGES:
        store = CheckpointStore(workdir / stage / "checkpoints")
        restored = store.restore(None, {"params": None, "opt_state": None, "count": None})
        for path, leaf in jax.tree_util.tree_leaves_with_path(dict(restored)):
            out[stage, restored.step, jax.tree_util.keystr(path)] = np.asarray(leaf).tobytes()
    return out


def records(workdir: Path) -> dict:
    out = {}
    for stage in STAGES:
        lines = map(json.loads, (workdir / stage / "metrics.jsonl").read_text().splitlines())
        out[stage] = [{k: v for k, v in line.items() if k not in TIMED} for line in lines]
    written = ("eval/**/*.json*", "eval/**/*.png", "reflect/samples/*", "reflect/funnel.json", "traces/*")
    for path in sorted(path for pattern in written for path in workdir.glob(pattern)):
        if path.name != TIMING:
            out[str(path.relative_to(workdir))] = path.read_bytes()
    out["hf"] = {path.name: path.read_bytes() for path in (workdir / "hf").iterdir()}
    return out


@pytest.mark.slow
def test_killed_in_every_stage(tmp_path):
    seed = random.randrange(1000)
    rng = random.Random(seed)
    print(f"seed {seed}")
    import_data("maze", ROOT / "tests" / "tasks" / "published" / "ViLaSR-eval", tmp_path / "maze")
    finish(start(tmp_path / "full"))
    broken, kills = tmp_path / "broken", 0
    for moment in MOMENTS:
        run = start(broken)
        while not list(broken.glob(moment)) and run.poll() is None:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 1.0))
        if run.poll() is None:
            run.send_signal(signal.SIGKILL)
            kills += 1
        run.communicate()
    finish(start(broken))
    assert kills >= 5
    full, resumed = final_bits(tmp_path / "full"), final_bits(broken)
    assert full.keys() == resumed.keys() and len(full) > 100
    assert [key for key in full if full[key] != resumed[key]] == []
    assert records(tmp_path / "full") == records(broken)
    finals = {
        tuple(value for (of, _, path), value in full.items() if of == stage and "params" in path)
        for stage in STAGES
    }
    assert len(finals) == len(STAGES)  # every stage changed something
