"""The machines of a Cloud TPU queued resource, by the gcloud command."""

from __future__ import annotations

import hashlib
import re
import shlex
import tempfile
import time

from shell import Failed, Pauses, Refused, Shell, say, seconds_of

from vilasr_jax.slices import CHIPS, SLICES

LOOK = seconds_of("VILASR_LOOK_SECONDS", 20)  # between two looks at the machines
PAUSE = seconds_of("VILASR_RETRY_SECONDS", 30)  # after a first failure; it doubles with each


class Machines:
    """The queued resource of a name, and its workers."""

    def __init__(self, shell: Shell, options: dict[str, str], spot: bool = False, fuse: bool = True):
        self.shell, self.options, self.spot, self.fuse = shell, options, spot, fuse
        self.name = options["name"]
        self.where = [f"--{key}={options[key]}" for key in ("zone", "project") if options[key]]
        self.made = False  # requested here, and not given back

    def queued(self, verb: str, *words: str) -> list[str]:
        """The words of a gcloud command about the queued resource."""
        return ["gcloud", "compute", "tpus", "queued-resources", verb, self.name, *self.where, *words]

    def ssh(self, worker: str, command: str) -> list[str]:
        """The words that run a shell command on a worker, or on "all"."""
        start = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", self.name, *self.where]
        return [*start, f"--worker={worker}", f"--command={command}"]

    @property
    def delete_words(self) -> list[str]:
        """The command that gives the machines back."""
        return self.queued("delete", "--force", "--quiet")

    @property
    def hosts(self) -> int | None:
        """Number of workers: --hosts, or that of a known type."""
        if self.options["hosts"]:
            return int(self.options["hosts"])
        kind, _, number = self.options["type"].rpartition("-")
        names = [f"{chip.name}-{number}" for chip in CHIPS.values() if chip.cloud == kind]
        return SLICES[names[0]].hosts if names and names[0] in SLICES else None

    @property
    def runtime(self) -> str:
        """The software of the machines: --version, or that of a known type."""
        kind = self.options["type"].rpartition("-")[0]
        return self.options["version"] or next((c.runtime for c in CHIPS.values() if c.cloud == kind), "")

    def check_type(self) -> None:
        """Raises Refused when the machines can't be requested."""
        if not self.options["type"]:
            raise Refused("this needs --type, such as v5litepod-64, v6e-16 or v5p-32")
        if not self.runtime:
            raise Refused(f"no runtime known for --type={self.options['type']}; give --version=RUNTIME")
        if self.options["hosts"] and not self.options["hosts"].isdecimal():
            raise Refused(f"--hosts={self.options['hosts']} must be a number")

    def state(self) -> str:
        """The state that Google Cloud gives; GONE only where it says so, UNKNOWN where it does not answer."""
        code, out, err = self.shell.ask(*self.queued("describe", "--format=value(state.state)"), timeout=60)
        if code == 0 and out.strip():
            return out.strip()
        if "NOT_FOUND" in err and self.name in err:
            return "GONE"
        say(f"{self.name}: its state is not known now ({' '.join(err.split())[-300:]}); nothing is changed")
        return "UNKNOWN"

    def create(self) -> None:
        """Requests the machines.

        Raises:
          Failed: the request is refused for a reason that time does not change.
        """
        self.check_type()
        kind = self.options["type"]
        words = self.queued("create", f"--node-id={self.name}", f"--accelerator-type={kind}")
        words += [f"--runtime-version={self.runtime}", *(["--spot"] if self.spot else [])]
        if self.shell.dry:
            self.shell.run(*words)
            return
        pauses = Pauses(PAUSE)
        while True:
            self.made = True  # an interrupt or a lost answer may leave a request behind
            code, _, err = self.shell.ask(*words, timeout=600)
            if code == 0:
                return
            reason = " ".join(err.split())[-500:]
            if "ALREADY_EXISTS" in err:
                self.made = pauses.count > 0  # an earlier try made it
                return
            if re.search(
                "INVALID_ARGUMENT|PERMISSION_DENIED|UNAUTHENTICATED|Invalid choice|unrecognized", err
            ):
                self.made = False
                raise Failed(f"{self.name} can't be requested: {reason}")
            pauses.wait(f"{self.name} could not be requested ({reason})")

    def wait_until_active(self) -> bool:
        """Waits for requested machines; whether they came."""
        while (state := self.state()) != "ACTIVE":
            if state in ("FAILED", "SUSPENDED", "GONE"):
                say(f"{self.name} is {state}")
                return False
            say(f"{self.name} is {state}; looking again in {LOOK:g} s")
            time.sleep(LOOK)
        return True

    def delete(self) -> None:
        """Gives the machines back.

        Raises:
          Failed: they could not be deleted.
        """
        pauses = Pauses(PAUSE, tries=5)
        while self.shell.run(*self.delete_words, timeout=1800):
            if self.state() == "GONE":
                break
            pauses.wait(f"{self.name} could not be deleted")
        self.made = False

    def install(self) -> None:
        """Installs this commit on every worker; with Cloud Storage FUSE, unless no bucket is to be mounted.

        Raises:
          Failed: the third try failed, too.
        """
        pauses = Pauses(PAUSE, tries=3)
        with tempfile.TemporaryDirectory() as folder:
            archive = f"{folder}/vilasr.tar.gz"
            if not self.shell.dry and self.shell.ask("git", "status", "--porcelain", timeout=60)[1]:
                say("changes that are not committed are not installed")
            if self.shell.run("git", "archive", "--format=tar.gz", f"--output={archive}", "HEAD"):
                raise Failed("no archive of this commit could be made")
            copy = ["gcloud", "compute", "tpus", "tpu-vm", "scp", archive, f"{self.name}:vilasr.tar.gz"]
            copy += [*self.where, "--worker=all"]
            unpack = "mkdir -p vilasr && tar -xzf vilasr.tar.gz -C vilasr"
            install = f"bash vilasr/launch/install_host.sh{' --fuse' if self.fuse else ''}"
            install_words = self.ssh("all", f"{unpack} && {install}")
            while self.shell.run(*copy, timeout=600) or self.shell.run(*install_words, timeout=3600):
                pauses.wait(f"{self.name} could not be installed on every worker")

    def start(self, command: list[str]) -> int:
        """Starts the run on every worker where none runs. The words are quoted here, and nowhere else."""
        settings = f"VILASR_RUN={run_id(command)}" + ("" if self.fuse else " VILASR_FUSE=0")
        start = f"{settings} bash vilasr/launch/host.sh --background {shlex.join(command)}"
        return self.shell.run(*self.ssh("all", start), timeout=300)

    def look(self, command: list[str]) -> dict[str, str]:
        """The run on each worker that answers: "running", "ended CODE", "lost", "none" or "other"."""
        ask = "bash vilasr/launch/host.sh --state || echo vilasr-host $(hostname) none"
        _, out, err = self.shell.ask(*self.ssh("all", ask), timeout=45)
        found = {}
        for host, state, run in re.findall(r"vilasr-host (\S+) (ended \d+|\w+) ?(\w*)", out):
            ours = run in ("", run_id(command))
            found[host] = state if ours else "other" if state == "running" else "none"
        if not found or (self.hosts and len(found) < self.hosts):
            say(f"{len(found)} of {self.hosts or '?'} workers answered ({' '.join(err.split())[-200:]})")
        return found

    def stop(self, seconds: int) -> int:
        """Ends the run on every worker: it saves and copies its log; it is killed after so many seconds."""
        command = f"bash vilasr/launch/host.sh --stop {seconds}"
        return self.shell.run(*self.ssh("all", command), timeout=seconds + 60)


def run_id(command: list[str]) -> str:
    """Names a command, so that the run of another one is not mistaken for it."""
    return hashlib.sha256(shlex.join(command).encode()).hexdigest()[:12]
