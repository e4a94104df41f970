"""Ctrl-C in real processes, while the main thread is busy where Python's own handler can't run."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vilasr_jax.ctrl_c import SAME_SECONDS
from vilasr_jax.workdir import read_job

ROOT = Path(__file__).parent.parent
# A command whose main thread is in one long call of C, as in a compilation.
BUSY = """
import hashlib, threading
from vilasr_jax import cli
def run(argv):
    {listen}
    threading.Timer(2, lambda: print("compiling", flush=True)).start()  # when the call has begun
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
cli._run = run
cli.main()
"""
LISTEN = "from vilasr_jax.training import interrupt; interrupt.listen()"
ENV = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def start():
    """Starts a command; returns the process, and a function that waits for a line that ends with some words
    and returns it."""
    processes = []

    def call(*words):
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        process = subprocess.Popen([sys.executable, *map(str, words)], cwd=ROOT, env=ENV, **pipes)
        processes.append(process)
        lines = []

        def line_with(text):
            watch = threading.Timer(600, process.kill)  # a busy machine needs its time
            watch.start()
            for line in process.stdout:
                lines.append(line)
                if text in line:
                    watch.cancel()
                    return line
            pytest.fail(f"no line with {text!r} in {lines}")

        return process, line_with

    yield call
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize(
    ("listen", "first", "second"),
    [
        ("pass", "Ctrl-C: waiting for what is compiling or being written", "vilasr: stopped by Ctrl-C"),
        (LISTEN, "after the step that is running or compiling, and saves", "the same command resumes it"),
    ],
    ids=["any command", "training"],
)
def test_ctrl_c_is_answered_while_the_main_thread_compiles(start, listen, first, second):
    process, line_with = start("-c", BUSY.format(listen=listen))
    line_with("compiling")
    process.send_signal(signal.SIGINT)
    assert "Ctrl-C again ends" in line_with(first) and process.poll() is None
    time.sleep(SAME_SECONDS)
    process.send_signal(signal.SIGINT)
    line_with(second)
    assert process.wait(timeout=60) == 130
    assert process.stdout.read() == ""  # each is said once


@pytest.mark.slow
def test_a_run_that_is_ended_in_a_compilation_resumes(start, tmp_path):
    """Both Ctrl-Cs come while the first step compiles; the same command then starts it again."""
    command = ["-m", "vilasr_jax.cli", "sft", "--config=maze_tiny", f"--workdir={tmp_path / 'run'}"]
    command += ["--config.cold_start.perception_steps=0", "--config.cold_start.validate_every=0"]
    command += ["--config.cold_start.steps=8", "--config.data.benchmarks=()"]
    process, line_with = start(*command)
    line_with(" of 8 (0 %), elapsed 0:00:00, compiling")
    process.send_signal(signal.SIGINT)
    line_with("Ctrl-C: the run stops after the step that is running or compiling")
    time.sleep(SAME_SECONDS)
    process.send_signal(signal.SIGINT)
    line_with("vilasr: ended by the second Ctrl-C")
    assert process.wait(timeout=60) == 130
    assert read_job(tmp_path / "run").cold_start.steps == 8
    assert not list(tmp_path.rglob("*.draft")) and not list(tmp_path.glob("run/cold_start/checkpoints/*"))
    process, line_with = start(*command)
    assert re.search(r"8 of 8 \(100 %\)", line_with("8 of 8"))
    assert process.wait(timeout=600) == 0
