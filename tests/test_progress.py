"""Progress of long work as lines of text, where the output is a pipe or a file."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vilasr_jax import progress
from vilasr_jax.progress import progress_bar, show_progress

ROOT = Path(__file__).parent.parent


def test_a_line_says_stage_step_rate_and_time_left(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS", 0.01)
    with progress_bar() as bars:
        bar = bars.add_task("cold start", total=400, completed=20, note="compiling")
        for step in (21, 22, 23, 24):
            time.sleep(0.05)
            bars.update(bar, completed=step, note=f"loss 0.{step}")
        time.sleep(0.05)
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("cold start: 20 of 400 (5 %), elapsed 0:00:00") and first.endswith("compiling")
    pattern = r"cold start: 24 of 400 \(6 %\), [\d.]+/s, elapsed 0:00:00, left 0:00:\d\d, loss 0\.24"
    assert re.fullmatch(pattern, rest[-1]), rest


def test_lines_are_seldom_but_the_ends_are_there(capsys):
    with show_progress("weights") as show:
        for done in range(1001):
            show(done, 1000)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" (")[0] for line in lines] == ["weights: 0 of 1,000", "weights: 1,000 of 1,000"]


def test_only_one_host_displays_progress(capsys):
    with progress_bar(shown=False) as bars:
        bars.update(bars.add_task("x", total=1, note=""), completed=1)
    assert capsys.readouterr().out == ""


def test_what_never_began_displays_nothing(capsys):
    with pytest.raises(ValueError), show_progress("weights"):
        raise ValueError
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_a_run_in_a_pipe_is_stopped_and_resumed(tmp_path):
    """Ctrl-C saves the step and says how to resume; the second run says where it resumes."""
    words = ["--config=maze_tiny", f"--workdir={tmp_path / 'run'}", "--config.stages=('cold_start',)"]
    words += ["--config.cold_start.perception_steps=0", "--config.cold_start.validate_every=0"]
    command = [sys.executable, "-m", "vilasr_jax.cli", "train", *words, "--config.cold_start.steps=24"]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

    def run(stop):
        out = []
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        with subprocess.Popen(command, cwd=ROOT, env=env, **pipes) as process:
            for line in process.stdout:
                out.append(line)
                if stop and line.endswith("compiling\n"):
                    process.send_signal(signal.SIGINT)
                    stop = False
        return process.returncode, "".join(out)

    code, out = run(stop=True)
    assert code == 143, out
    assert re.search(r"cold start: drawing: 0 of 24 \(0 %\), elapsed 0:00:00, compiling\n", out)
    stopped = re.search(r"stopped after step (\d+) of 24, and saved; the same command resumes it", out)
    assert stopped and 0 < int(stopped[1]) < 24, out
    code, out = run(stop=False)
    assert code == 0, out
    assert f"resuming from step {stopped[1]} of 24" in out
    assert re.search(r": 24 of 24 \(100 %\), .*loss \d", out)
