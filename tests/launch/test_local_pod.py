"""`launch/local_pod.sh`: what each process gets, and how the pod ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def pod(*words, **env):
    return subprocess.run(
        ["bash", "launch/local_pod.sh", *words],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_each_process_knows_its_number_and_the_coordinator():
    done = pod("3", "bash", "-c", "echo $VILASR_PROCESS_ID/$VILASR_NUM_PROCESSES at $VILASR_COORDINATOR")
    assert done.returncode == 0, done.stderr
    lines = sorted(done.stdout.splitlines())
    assert [line.split(" at ")[0] for line in lines] == ["[0] 0/3", "[1] 1/3", "[2] 2/3"]
    assert len({line.split(" at ")[1] for line in lines}) == 1


def test_dry_run_prints_the_commands_and_starts_nothing(tmp_path):
    done = pod("--dry-run", "2", "touch", str(tmp_path / "new"), VILASR_PORT="1234")
    assert done.returncode == 0 and not (tmp_path / "new").exists()
    assert done.stdout.splitlines()[1] == (
        f"VILASR_COORDINATOR=localhost:1234 VILASR_NUM_PROCESSES=2 VILASR_PROCESS_ID=1 touch {tmp_path}/new"
    )


def test_one_failure_ends_all_in_bounded_time():
    began = time.monotonic()
    done = pod("3", "bash", "-c", "[ $VILASR_PROCESS_ID != 1 ] || exit 7; sleep 50", VILASR_GRACE="1")
    assert done.returncode == 7 and time.monotonic() - began < 20
    assert "process 1 of 3 ended with code 7" in done.stderr
    assert "run the same command again" in done.stderr


@pytest.mark.parametrize("number, ends", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stop_request_reaches_all_and_is_the_exit_code(tmp_path, number, ends):
    save = "trap 'touch $OUT/saved$VILASR_PROCESS_ID; exit 143' TERM; touch $OUT/up$VILASR_PROCESS_ID"
    words = ["2", "bash", "-c", f"{save}; while :; do sleep 0.1; done"]
    env = {**os.environ, "OUT": str(tmp_path)}
    run = subprocess.Popen(["bash", "launch/local_pod.sh", *words], cwd=ROOT, env=env)
    while len(list(tmp_path.glob("up*"))) < 2:
        time.sleep(0.05)
    run.send_signal(number)
    assert run.wait(30) == ends and len(list(tmp_path.glob("saved*"))) == 2


@pytest.mark.parametrize("words", [(), ("2",), ("none", "true"), ("0", "true")])
def test_wrong_words_are_refused(words):
    done = pod(*words)
    assert done.returncode == 2 and "local_pod.sh" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number, how", [(0, "KILL"), (1, "KILL"), (1, "STOP")])
def test_a_dead_or_frozen_process_ends_the_pod_within_a_minute(tmp_path, number, how):
    script = tmp_path / "meet.py"
    script.write_text(
        "import os, time\n"
        "from vilasr_jax.parallel import join\n"
        "join()\n"
        "from jax.experimental import multihost_utils\n"
        "multihost_utils.sync_global_devices('start')\n"
        f"open('{tmp_path}/' + os.environ['VILASR_PROCESS_ID'], 'w').write(str(os.getpid()))\n"
        "while True:\n"
        "    multihost_utils.sync_global_devices('again')\n"
        "    time.sleep(0.2)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    run = subprocess.Popen(
        ["bash", "launch/local_pod.sh", "2", sys.executable, str(script)],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("[01]"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    began = time.monotonic()
    subprocess.run(["kill", f"-{how}", (tmp_path / str(number)).read_text()], check=True)
    _, err = run.communicate(timeout=120)
    assert run.returncode != 0 and time.monotonic() - began < 60, err[-2000:]
    assert "run the same command again" in err
