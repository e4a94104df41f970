"""`host.sh` and `install_host.sh` on one host: buckets, restarts, signals, logs, locks of packages."""

import os
import re
import signal
import subprocess
import time

import pytest

from tests.launch.fake_cloud import JOB, ROOT, write_program


@pytest.fixture
def host(tmp_path):
    """Starts host.sh with HOME and programs in a folder of its own."""

    def start(*words, script="host.sh", **env):
        outside = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
        programs = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path), "VILASR_PAUSE": "0"}
        programs |= {"VILASR_PYTHON": str(tmp_path / "python"), "VILASR_MOUNTS": str(tmp_path / "gcs")}
        return subprocess.Popen(
            ["bash", f"launch/{script}", *words],
            cwd=ROOT,
            env=outside | programs | env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start


def finish(process):
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def test_host_mounts_the_bucket_and_gives_vilasr_the_folder(host, tmp_path):
    code, out, _ = finish(host("--dry-run", *JOB, VILASR_PYTHON="python"))
    options = "--metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0"
    assert code == 0 and out.splitlines() == [
        f"mkdir -p {tmp_path}/gcs/my-bucket",
        f"gcsfuse --implicit-dirs --rename-dir-limit=200000 {options} my-bucket {tmp_path}/gcs/my-bucket",
        f"export JAX_COMPILATION_CACHE_DIR={tmp_path}/gcs/my-bucket/runs/compile_cache",
        f"python -m vilasr_jax.cli {JOB[0]} {JOB[1]} --workdir={tmp_path}/gcs/my-bucket/runs/one",
    ]


def test_fuse_is_an_option(host):
    out = finish(host("--dry-run", *JOB, VILASR_PYTHON="python", VILASR_FUSE="0"))[1]
    assert "gcsfuse" not in out and out.splitlines()[-1] == f"python -m vilasr_jax.cli {' '.join(JOB)}"


def test_a_bucket_without_a_name_is_refused(host):
    code, _, err = finish(host("train", "--workdir=gs:///runs"))
    assert code == 2 and "must be followed by a bucket" in err


def test_a_mount_that_fails_is_tried_again(host, tmp_path):
    write_program(tmp_path, "python", "exit 0")
    write_program(tmp_path, "gcsfuse", f"echo >>{tmp_path}/n; [ $(wc -l <{tmp_path}/n) -ge 3 ] || exit 2")
    code, _, err = finish(host(*JOB))
    assert code == 0 and err.count("failed with code 2; next try") == 2, err


def test_a_bucket_that_can_not_be_mounted_is_no_refusal(host, tmp_path):
    """Exit code 2 means that the command is wrong; a mount may work on another machine."""
    write_program(tmp_path, "python", "exit 0")
    write_program(tmp_path, "gcsfuse", "exit 2")
    assert finish(host(*JOB))[0] == 1


@pytest.mark.parametrize(
    "codes, ends, runs",
    [("1 134 0", 0, 3), ("2", 2, 1), ("143", 143, 1), ("1 1 1", 1, 3), ("130", 130, 1), ("1 2 0", 0, 3)],
)
def test_host_starts_a_failed_run_again(host, tmp_path, codes, ends, runs):
    write_program(
        tmp_path,
        "python",
        f"""count={tmp_path}/n; codes=({codes})
n=$(cat $count 2>/dev/null || echo 0)
echo $((n + 1)) >$count
exit ${{codes[n]}}""",
    )
    code, _, err = finish(host("train", VILASR_RESTARTS="2"))
    assert code == ends, err
    assert (tmp_path / "n").read_text() == f"{runs}\n"
    assert ends == 0 or "host " in err
    assert (tmp_path / "vilasr.exit").read_text() == f"{ends}\n"


def test_pauses_between_restarts_grow(host, tmp_path):
    write_program(tmp_path, "python", "exit 1")
    write_program(tmp_path, "sleep", f"echo $1 >>{tmp_path}/slept")
    finish(host("train", VILASR_RESTARTS="8", VILASR_PAUSE="10"))
    slept = (tmp_path / "slept").read_text().split()
    assert [int(one) for one in slept if one != "0.1"] == [10, 20, 40, 80, 160, 300, 300, 300]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_request_saves_and_ends_with_143(host, tmp_path, number):
    write_program(
        tmp_path,
        "python",
        f"trap 'echo saved; exit 143' TERM; touch {tmp_path}/up; while :; do sleep 0.1; done",
    )
    process = host("train", f"--workdir={tmp_path}/run", VILASR_PAUSE="30")
    while not (tmp_path / "up").exists():
        time.sleep(0.05)
    process.send_signal(number)
    code, out, _ = finish(process)
    assert code == 143 and "saved" in out
    assert "saved" in next((tmp_path / "run" / "logs").glob("*.log")).read_text()


def test_a_stop_request_between_two_tries_ends_at_once(host, tmp_path):
    write_program(tmp_path, "python", f"touch {tmp_path}/up; exit 1")
    process = host("train", VILASR_PAUSE="30")
    while not (tmp_path / "up").exists():
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 143


def test_the_complete_log_is_saved_before_the_exit_code_is(host, tmp_path):
    """Who sees the exit code may delete the machine: by then the last line must be in the workdir."""
    write_program(tmp_path, "python", "for i in $(seq 20000); do echo line $i; done; echo oh >&2; exit 3")
    process = host("train", f"--workdir={tmp_path}/run", VILASR_RESTARTS="0")
    out, err = process.communicate(timeout=30)
    text = next((tmp_path / "run" / "logs").glob("*.log")).read_text()
    assert process.returncode == 3 and "line 20000\n" in text and "oh\n" in text and "giving up" in text
    assert "line 20000\n" in out and "oh\n" in err


def test_a_hung_run_is_killed_and_its_log_is_saved(host, tmp_path):
    write_program(
        tmp_path, "python", f"trap '' TERM; echo hung; touch {tmp_path}/up; while :; do sleep 0.1; done"
    )
    finish(host("--background", "train", f"--workdir={tmp_path}/run"))
    while not (tmp_path / "up").exists():
        time.sleep(0.05)
    assert finish(host("--stop", "1"))[0] == 0
    assert re.search(r"vilasr-host \S+ lost", finish(host("--state"))[1])
    assert "hung" in next((tmp_path / "run" / "logs").glob("*.log")).read_text()


def test_usage():
    done = subprocess.run(["bash", "launch/host.sh"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "COMMAND --config" in done.stderr


@pytest.fixture
def machine(tmp_path):
    """A fresh machine with an old Python, whose package manager is locked at first; runs install_host.sh."""
    (tmp_path / "launch").mkdir()
    for name in ("install_host.sh", "venv.sh", "retry.sh", "versions.lock"):
        (tmp_path / "launch" / name).write_text((ROOT / "launch" / name).read_text())
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / ".venv").mkdir()
    programs = tmp_path / "programs"
    write_program(programs, "apt-cache", "exit 1")
    write_program(programs, "curl", f'echo "curl $*" >>{tmp_path}/log')
    write_program(programs, "dpkg", "echo amd64")
    write_program(programs, "python3", "exit 1")

    def run(*words, locked=0, pip="exit 0"):
        busy = 'echo "E: Could not get lock /var/lib/apt/lists/lock" >&2; exit 100'
        looks = f"$(grep -c apt-get {tmp_path}/log) <= {locked}"
        text = f'echo "$*" >>{tmp_path}/log\nif [[ "$*" == *apt-get* ]] && (({looks})); then {busy}; fi'
        write_program(programs, "sudo", text)
        write_program(tmp_path / ".venv" / "bin", "python", f'echo "$*" >>{tmp_path}/log; {pip}')
        env = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "VILASR_PAUSE": "0"}
        done = subprocess.run(
            ["bash", "launch/install_host.sh", *words],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=30,
        )
        log = tmp_path / "log"
        return done, log.read_text() if log.exists() else ""

    return run


def test_a_fresh_machine_gets_package_sources_and_fuse(machine):
    done, log = machine("--fuse")
    assert done.returncode == 0, done.stderr
    parts = ("curl", "gcsfuse_", "ppa:deadsnakes/ppa", "python3.11-venv", "pip install")
    assert sorted(parts, key=log.index) == list(parts)
    assert log.count("DPkg::Lock::Timeout=600") == log.count("apt-get") == 6
    pip = log.splitlines()[-1]
    assert "--constraint launch/versions.lock --editable .[tpu]" in pip


def test_fuse_is_installed_only_with_its_flag(machine):
    assert "gcsfuse" not in machine()[1]


def test_an_install_dry_run_does_nothing(machine):
    done, log = machine("--fuse", "--dry-run")
    assert done.returncode == 0 and not log
    assert "ppa:deadsnakes/ppa" in done.stdout and "make .venv" in done.stdout


def test_locks_of_the_package_manager_are_waited_for(machine):
    done, log = machine(locked=3)
    assert done.returncode == 0 and done.stderr.count("failed with code 100; next try") == 3
    assert "pip install" in log


def test_an_install_that_fails_runs_again(machine):
    """pip's failure reaches the caller after three tries, and the next call installs again."""
    done, log = machine(pip="exit 1")
    assert done.returncode == 1 and log.count("pip install") == 3
    done, log = machine()
    assert done.returncode == 0 and log.count("pip install") == 4
    assert machine()[1].count("pip install") == 4
