#!/usr/bin/env python3
"""A run on a TPU slice under GKE. Needs kubectl, pointed at a cluster with a TPU node pool and JobSet.

    python3 launch/gke.py [--dry-run] apply --name=NAME --topology=v5e:8x8 --image=IMAGE --bucket=BUCKET
        [--spot] [--service-account=NAME] [--restarts=20] --
        train --config=configs/vilasr.py:7b,v5e-64 --workdir=gs://BUCKET/RUN
        --config.model.init_from=gs://BUCKET/Qwen2.5-VL-7B-Instruct --config.data.root=gs://BUCKET/data
    python3 launch/gke.py [--dry-run] status|tail|delete --name=NAME [--worker=N]

--dry-run prints the manifest, or the command. Build the image with launch/Dockerfile.
"""

from __future__ import annotations

import json
import re
import shlex
from string import Template

from shell import ROOT, Failed, Pauses, Refused, Shell, read_options, run_main, say, seconds_of, split_command

from vilasr_jax.errors import ConfigError
from vilasr_jax.slices import parse_topology

PAUSE = seconds_of("VILASR_RETRY_SECONDS", 10)
OPTIONS = {
    "name": "",
    "topology": "",
    "image": "",
    "bucket": "",
    "service-account": "default",
    "restarts": "20",
    "worker": "0",
}


def manifest(options: dict[str, str], spot: bool, command: list[str]) -> str:
    """The JobSet. Words are quoted as JSON, and `$(`, which Kubernetes would expand, is escaped."""
    try:
        topology = parse_topology(options["topology"])
    except ConfigError as error:
        raise Refused(str(error)) from None
    buckets = sorted({options["bucket"], *re.findall(r"gs://([^/'\",)\s]+)", " ".join(command))})
    if missing := [name for name in buckets if name != options["bucket"]]:
        raise Refused(
            f"the command names gs://{missing[0]}, but a pod has only the bucket {options['bucket']}"
        )
    text = Template((ROOT / "launch" / "gke_jobset.yaml").read_text()).substitute(
        NAME=options["name"],
        IMAGE=json.dumps(options["image"]),
        BUCKET=options["bucket"],
        SERVICE_ACCOUNT=options["service-account"],
        RESTARTS=options["restarts"],
        ACCELERATOR=topology.chip.gke,
        TOPOLOGY=topology.grid,
        HOSTS=topology.hosts,
        CHIPS=topology.size // topology.hosts,
        ARGS=json.dumps([word.replace("$(", "$$(") for word in command]),
    )
    return text if spot else re.sub(r".*gke-spot: \"true\"\n", "", text)


def apply(shell: Shell, options: dict[str, str], spot: bool, command: list[str]) -> int:
    """Creates the JobSet."""
    if not (options["topology"] and options["image"] and options["bucket"]):
        raise Refused("apply needs --topology, --image and --bucket")
    if not command:
        raise Refused("apply needs -- and a vilasr command")
    text = manifest(options, spot, command)
    if shell.dry:
        print(text)
        return 0
    name, delete = options["name"], shlex.join(delete_words(options["name"]))
    try:
        code = shell.run("kubectl", "apply", "-f", "-", stdin=text)
    except BaseException:
        say(f"*** interrupted: {name} may have been created; its nodes COST MONEY. To delete it: {delete}")
        raise
    if code:
        raise Failed(f"kubectl did not create {name} (see above); if one is there from earlier: {delete}")
    say(f"{name} is created; its nodes cost money until it has ended, or: {delete}")
    return 0


def delete_words(name: str) -> list[str]:
    return ["kubectl", "delete", "jobset", name]


def tail(shell: Shell, name: str, worker: str) -> int:
    """Follows the log of a pod, and of the pod after it when the JobSet starts all of them again."""
    select = f"jobset.sigs.k8s.io/jobset-name={name},batch.kubernetes.io/job-completion-index={worker}"
    words = ["kubectl", "logs", "--follow", f"--selector={select}"]
    pauses = Pauses(PAUSE, longest=60)
    while shell.run(*words):
        code, _, err = shell.ask("kubectl", "get", "jobset", name, timeout=60)
        if code and "NotFound" in err:
            raise Failed(f"there is no JobSet {name}")
        pauses.wait("its pod has no log yet, or kubectl did not answer")
    return 0


def main(argv: list[str]) -> int:
    words, command = split_command(argv)
    rest, options, flags = read_options(words, OPTIONS, ("spot", "dry-run"))
    shell, name = Shell("dry-run" in flags), options["name"]
    verbs = {
        "apply": lambda: apply(shell, options, "spot" in flags, command),
        "status": lambda: shell.run(
            "kubectl", "get", "jobset,pods", f"--selector=jobset.sigs.k8s.io/jobset-name={name}"
        ),
        "tail": lambda: tail(shell, name, options["worker"]),
        "delete": lambda: shell.run(*delete_words(name)),
    }
    if len(rest) != 1 or rest[0] not in verbs or not name:
        raise Refused("give apply, status, tail or delete, and --name")
    return verbs[rest[0]]()


if __name__ == "__main__":
    run_main(main, "gke", "the first lines of launch/gke.py say how it is used")
