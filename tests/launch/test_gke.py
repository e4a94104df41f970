"""`gke.py`: manifests that fit their schemas, and a `kubectl` that fails."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import yaml

from tests.launch.fake_cloud import JOB, ROOT, write_program

APPLY = ("apply", "--name=one", "--topology=v5e:8x8", "--image=repo/vilasr:1", "--bucket=my-bucket")


def start(*words, path=None):
    env = {**os.environ, "VILASR_RETRY_SECONDS": "0.01", "PATH": f"{path}:{os.environ['PATH']}"}
    return subprocess.Popen(
        [sys.executable, "launch/gke.py", *words],
        cwd=ROOT,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def gke(*words, path=None):
    process = start(*words, path=path)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def jobset(*options, command=JOB):
    code, out, err = gke("--dry-run", *APPLY, *options, "--", *command)
    assert code == 0, err
    return yaml.safe_load(out)


def template(manifest):
    return manifest["spec"]["replicatedJobs"][0]["template"]


def test_jobset_asks_for_every_host_of_the_slice():
    manifest = jobset("--spot")
    assert "${" not in yaml.safe_dump(manifest)
    job = template(manifest)
    pod = job["spec"]["template"]["spec"]
    assert (job["spec"]["parallelism"], job["spec"]["completions"]) == (16, 16)
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "8x8",
        "cloud.google.com/gke-spot": "true",
    }
    assert pod["containers"][0]["args"] == list(JOB)
    assert "cloud.google.com/gke-spot" not in template(jobset())["spec"]["template"]["spec"]["nodeSelector"]


def test_the_job_in_the_jobset_fits_the_kubernetes_schema():
    validate = pytest.importorskip("kubernetes_validate")
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "slice"}, **template(jobset())}
    validate.validate(job, validate.latest_version(), strict=True)


def test_words_of_the_jobset_are_those_given():
    """Quotes, line ends, template words and `$(...)`, which Kubernetes would read as a variable, arrive."""
    words = (
        "train",
        "--config.data.benchmarks=('a', \"b\")",
        "--x=${NAME} $(HOME) & \\n\n",
        "--y=gs://my-bucket/z",
    )
    args = template(jobset(command=words))["spec"]["template"]["spec"]["containers"][0]["args"]
    assert [re.sub(r"\$\$", "$", word) for word in args] == list(words)
    assert "$$(HOME)" in args[2]


def test_a_refused_command_ends_the_jobset_at_once():
    """Exit code 2 of one pod fails the job and the JobSet; any other starts all pods again."""
    manifest = jobset()
    rules = template(manifest)["spec"]["podFailurePolicy"]["rules"]
    assert rules == [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2]}}]
    policy = manifest["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 20
    assert [(rule["action"], rule["onJobFailureReasons"]) for rule in policy["rules"]] == [
        ("FailJobSet", ["PodFailurePolicy"])
    ]


def test_hosts_see_at_once_what_another_wrote():
    volume = template(jobset())["spec"]["template"]["spec"]["volumes"][0]
    options = volume["csi"]["volumeAttributes"]["mountOptions"].split(",")
    assert {"metadata-cache:ttl-secs:0", "metadata-cache:negative-ttl-secs:0"} < set(options)


@pytest.mark.parametrize(
    "words, says",
    [
        (("apply", "--name=one"), "needs --topology, --image and --bucket"),
        ((*APPLY, "--topology=v5e:3", "--", "train"), "--topology=v5e:3"),
        (APPLY, "apply needs --"),
        ((*APPLY, "--", "train", "--config.data.traces=('gs://my-bucket/a', 'gs://other/b')"), "gs://other"),
        (("tail",), "give apply, status, tail or delete, and --name"),
        ((*APPLY, "--sopt", "--", "train"), "unknown option --sopt"),
    ],
)
def test_gke_refuses_what_it_can_not_do(words, says):
    code, _, err = gke(*words)
    assert code == 2 and says in err


def test_apply_gives_kubectl_the_manifest(tmp_path):
    write_program(tmp_path, "kubectl", f'echo "$*" >>{tmp_path}/log; cat >{tmp_path}/manifest')
    code, _, err = gke(*APPLY, "--", *JOB, path=tmp_path)
    assert code == 0 and "kubectl delete jobset one" in err
    assert (tmp_path / "log").read_text() == "apply -f -\n"
    assert json.dumps(list(JOB)) in (tmp_path / "manifest").read_text()


def test_a_failed_apply_says_what_may_be_left(tmp_path):
    write_program(tmp_path, "kubectl", 'echo "connection refused" >&2; exit 1')
    code, _, err = gke(*APPLY, "--", *JOB, path=tmp_path)
    assert code == 1 and "connection refused" in err and "kubectl delete jobset one" in err


def test_an_interrupted_apply_says_what_may_cost(tmp_path):
    write_program(tmp_path, "kubectl", f"touch {tmp_path}/called; exec sleep 30")
    process = start(*APPLY, "--", *JOB, path=tmp_path)
    while not (tmp_path / "called").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    err = process.communicate(timeout=30)[1]
    assert process.returncode == 143 and "COST MONEY" in err and "kubectl delete jobset one" in err


def test_tail_waits_for_its_pod(tmp_path):
    write_program(
        tmp_path,
        "kubectl",
        f"""echo "$*" >>{tmp_path}/log
[[ $1 != logs || $(grep -c ^logs {tmp_path}/log) -ge 4 ]] || {{ echo "is waiting to start" >&2; exit 1; }}""",
    )
    code, _, err = gke("tail", "--name=one", "--worker=3", path=tmp_path)
    assert code == 0 and re.findall(r"next try in (\S+) s", err) == ["0.01", "0.02", "0.04"]
    assert "job-completion-index=3" in (tmp_path / "log").read_text()


def test_tail_ends_when_there_is_no_such_jobset(tmp_path):
    write_program(
        tmp_path, "kubectl", 'echo "Error from server (NotFound): jobsets one not found" >&2; exit 1'
    )
    code, _, err = gke("tail", "--name=one", path=tmp_path)
    assert code == 1 and "there is no JobSet one" in err
