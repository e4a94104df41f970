"""`sky.yaml`: its schema, and what SkyPilot would run on each node."""

import os
import shlex
import subprocess
import sys

import pytest
import yaml

from tests.launch.fake_cloud import ROOT, write_program

# What `sky jobs launch FILE --env NAME=VALUE` does with a task, on two nodes of this machine: the nodes run
# its commands; when one fails the others are killed; exit codes of recover_on_exit_codes start all again.
SKY = """
import os, signal, subprocess, sys, time
import yaml

task = yaml.safe_load(open(sys.argv[3]))
given = dict(word.split("=", 1) for word in sys.argv[5::2])
assert given.keys() <= task["envs"].keys(), given
recover = task["resources"]["job_recovery"]["recover_on_exit_codes"]
for _ in range(4):
    nodes = []
    for rank in range(2):
        env = {**os.environ, **task["envs"], **given, "RANK": str(rank)}
        env["HOME"] = os.environ["NODES"] + str(rank)
        nodes.append(subprocess.Popen(["bash", "-c", task["run"]], env=env, start_new_session=True))
    while all(node.poll() is None for node in nodes):
        time.sleep(0.05)
    failed = [node.returncode for node in nodes if node.poll()]
    for node in nodes:
        if failed and node.poll() is None:
            os.killpg(node.pid, signal.SIGKILL)
    codes = failed or [node.wait() for node in nodes]
    if codes[0] not in recover:
        sys.exit(codes[0])
sys.exit(99)
"""


@pytest.fixture
def sky(tmp_path):
    """Runs the task on two nodes; their `vilasr` is the program given. Returns what it ended with."""
    write_program(tmp_path, "sky", f'exec {sys.executable} {tmp_path}/sky.py "$@"')
    (tmp_path / "sky.py").write_text(SKY)
    for rank in range(2):
        (tmp_path / f"node{rank}").mkdir()

    def run(vilasr, *words):
        write_program(tmp_path, "vilasr_python", vilasr)
        write_program(tmp_path, "gcsfuse", "true")
        env = {
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "OUT": str(tmp_path),
            "NODES": f"{tmp_path}/node",
            "VILASR_PYTHON": f"{tmp_path}/vilasr_python",
            "VILASR_MOUNTS": f"{tmp_path}/gcs",
        }
        words = ["sky", "jobs", "launch", "launch/sky.yaml", *(part for w in words for part in ("--env", w))]
        return subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)

    return run


def test_words_of_the_sky_task_arrive_as_given(sky, tmp_path):
    more = ["--config.data.benchmarks=('vsi_bench', 'maze')", '--config.name=a "b" $c']
    done = sky("printf '%s\\n' \"$@\" >$OUT/words$RANK", "BUCKET=b-1", f"EXTRA={shlex.join(more)}")
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        assert (tmp_path / f"words{rank}").read_text().splitlines()[2:] == [
            "train",
            "--config=configs/vilasr.py:7b,v5e-64",
            f"--workdir={tmp_path}/gcs/b-1/sft7b",
            "--config.model.init_from=gs://b-1/Qwen2.5-VL-7B-Instruct",
            f"--config.data.root={tmp_path}/gcs/b-1/data",
            *more,
        ]


def test_exit_143_starts_the_sky_task_again(sky, tmp_path):
    """A stop request that a preemption sends resumes; it is no failure of the program."""
    done = sky("echo >>$OUT/starts$RANK; [ $(wc -l <$OUT/starts$RANK) -gt 1 ] || exit 143; sleep 1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "starts0").read_text() == "\n\n"


def test_a_refused_sky_task_is_not_started_again(sky, tmp_path):
    done = sky("echo >>$OUT/starts$RANK; [ $RANK = 0 ] || exit 2; sleep 50")
    assert done.returncode == 2 and (tmp_path / "starts1").read_text() == "\n", done.stderr


def test_the_sky_task_fits_skypilots_schema():
    schemas = pytest.importorskip("sky.utils.schemas", exc_type=ImportError)
    jsonschema = pytest.importorskip("jsonschema")
    task = yaml.safe_load((ROOT / "launch/sky.yaml").read_text())
    jsonschema.validate(task, schemas.get_task_schema())
