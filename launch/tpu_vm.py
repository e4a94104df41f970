#!/usr/bin/env python3
"""Cloud TPU VMs from a queued resource to a finished run. Needs the gcloud command, logged in.

    python3 launch/tpu_vm.py VERB --name=NAME --zone=ZONE [--project=PROJECT] [--dry-run] [...]

Verbs:
    keep    --type=... [--spot] -- train ...                  all of the next three, again after a preemption,
                                                              watched until the run has ended; then delete
    create  --type=v5litepod-64 [--spot] [--version=RUNTIME]  request the machines, and wait for them
    install [--no-fuse]                                       this commit and its packages, on all workers
    run     -- train --config=... --workdir=gs://BUCKET/RUN   start the run on all workers, in the background
    status                                                    the machines and the run on each of them
    tail    [--worker=0]                                      follow a worker's log
    stop                                                      save and end the run; the machines stay
    fetch   --from=gs://BUCKET/RUN --to=DIR                   a run's results and logs (not its checkpoints)
    delete                                                    give the machines back

Example:
    python3 launch/tpu_vm.py keep --name=sft7b --zone=us-west4-a --type=v5litepod-64 --spot -- \\
        train --config=configs/vilasr.py:7b,v5e-64 --workdir=gs://my-bucket/sft7b \\
        --config.model.init_from=gs://my-bucket/Qwen2.5-VL-7B-Instruct --config.data.root=gs://my-bucket/data

Each verb takes --dry-run, which prints the commands. --no-fuse: no bucket is mounted as a folder.
Machines are deleted when the run has ended, and when they were requested here and no run was started on them
(a failed installation, Ctrl-C). Whenever some may be left, the last lines say so, and how to delete them.
"""

from __future__ import annotations

import shlex
import time

from shell import Failed, Interrupted, Pauses, Refused, Shell, read_options, run_main, say, split_command
from tpu_machines import LOOK, PAUSE, Machines

STEADY = 600  # seconds after which a run counts as one that worked
REFUSED, STOPPED = 2, 143  # exit codes of `vilasr`
OPTIONS = dict.fromkeys(("name", "zone", "project", "type", "version", "hosts", "from", "to"), "")
OPTIONS["worker"] = "0"


class Keeper:
    """Requests machines, runs a command on them, watches every worker, and gives the machines back."""

    def __init__(self, machines: Machines, command: list[str]):
        self.machines, self.command = machines, command
        self.requests, self.answers, self.starts = Pauses(PAUSE), Pauses(PAUSE, longest=60), Pauses(PAUSE)
        self.requested = False  # and not ACTIVE since
        self.started: float | None = None  # when the run was last started from here
        self.partly = 0  # looks in a row at which it did not run on all workers, and maybe on some

    def run(self) -> int:
        """The exit code of the run."""
        while True:
            state = self.machines.state()
            if state == "ACTIVE":
                self.requests.reset()
                self.requested = False
                code = self.look()
                if code is not None:
                    return self.end(code)
            elif state in ("GONE", "FAILED", "SUSPENDED"):
                if self.started is not None:
                    say(f"{self.machines.name} was preempted; requesting another, the run will resume")
                self.started, self.partly = None, 0
                if state != "GONE":
                    self.machines.delete()
                if self.requested:
                    self.requests.wait(f"{self.machines.name} was {state} before it was ACTIVE")
                self.machines.create()
                self.requested = True
            elif state != "UNKNOWN":
                say(f"{self.machines.name} is {state}")
            time.sleep(LOOK)

    def look(self) -> int | None:
        """Looks at every worker, starts the run where it must be; its exit code once it has ended."""
        found = self.machines.look(self.command)
        states = list(found.values())
        if "other" in states:
            raise Failed(
                f"another command runs on {self.machines.name}; end it first (stop), or use another --name"
            )
        codes = {int(state.split()[1]) for state in states if state.startswith("ended")}
        if self.started is not None:
            for code in (REFUSED, *sorted(codes - {0, REFUSED, STOPPED})):
                if code in codes:
                    hosts = [host for host, state in found.items() if state == f"ended {code}"]
                    say(f"the run ended with code {code} on {', '.join(hosts)}; ending it on all")
                    return code
        if not states and self.started is None:
            self.answers.wait(f"no worker of {self.machines.name} answers")
        if not states or all(state == "running" for state in states):
            self.partly = 0
            if states and self.started is None:
                self.started = time.monotonic()
            return None
        everyone = len(states) >= (self.machines.hosts or 1)
        done = all(state == "ended 0" for state in states)
        if done and (everyone or self.partly >= 30):
            return 0
        if done or ("running" in states and self.partly < 3):  # the others may be about to end as well
            self.partly += 1
            return None
        if self.started is not None:
            if time.monotonic() - self.started > STEADY:
                self.starts.reset()
            try:
                self.starts.wait(f"the run stopped ({', '.join(sorted(set(states)))}); it will resume")
            except Failed as error:
                say(str(error))
                return 1
        self.start(states)
        return None

    def start(self, states: list[str]) -> None:
        """Installs where something is missing, and starts the run on the workers where it does not run."""
        if "none" in states or (self.started is None and "running" not in states):
            self.machines.install()
        if self.machines.start(self.command):
            say("the run was not started on every worker")
        self.started, self.partly = time.monotonic(), 0

    def end(self, code: int) -> int:
        """Ends what still runs, whose logs are copied to the bucket by that, and gives the machines back."""
        if code:
            last = 'tail -n 5 vilasr.log | sed "s/^/$(hostname): /"'
            self.machines.shell.run(*self.machines.ssh("all", last), timeout=60)
        if code and self.machines.stop(10 if code == REFUSED else 60):
            say("not every worker was reached; the last minute of its log may be missing in the bucket")
        say(f"the run ended with code {code}; giving the machines back")
        self.machines.delete()
        return code


def leave(machines: Machines, started: bool) -> None:
    """After a failure or an interrupt: deletes what was requested here in vain, or says what still costs."""
    state = "not known"
    try:
        if machines.made and not started:
            say(f"no run was started on {machines.name}; deleting it")
            if not machines.shell.run(*machines.delete_words):
                return
        state = machines.state()
    except Interrupted:
        say("interrupted again")
    if state == "GONE":
        return
    say(f"*** {machines.name} IS NOT DELETED and may COST MONEY. Its state: {state}.")
    if started:
        say("*** The run may still be going there; the same command watches it again.")
    say(f"*** To delete it: {shlex.join(machines.delete_words)}")


def keep(machines: Machines, command: list[str]) -> int:
    """Requests machines, runs the command on them, watches it, and gives the machines back."""
    machines.check_type()
    if machines.hosts is None:
        raise Refused(f"how many workers {machines.options['type']} has is not known; give --hosts=NUMBER")
    if machines.shell.dry:
        machines.create()
        print(f"# every {LOOK:g} s, and nothing is changed when it does not answer:")
        print(shlex.join(machines.queued("describe", "--format=value(state.state)")))
        print("# when it is ACTIVE:")
        machines.install()
        machines.start(command)
        print("# until every worker has ended; after a preemption all of it again; then:")
        machines.stop(60)
        machines.delete()
        return 0
    if machines.state() == "UNKNOWN":
        raise Failed("gcloud gives no answer, see above; nothing was requested")
    keeper = Keeper(machines, command)
    try:
        return keeper.run()
    except BaseException:
        leave(machines, keeper.started is not None)
        raise


def create(machines: Machines) -> int:
    """Requests the machines and waits for them."""
    machines.check_type()
    try:
        machines.create()
        if machines.shell.dry:
            print(f"# wait until queued-resources describe {machines.name} says ACTIVE")
            return 0
        if machines.wait_until_active():
            say(f"{machines.name} is ACTIVE and costs money until: {shlex.join(machines.delete_words)}")
            return 0
        raise Failed(f"{machines.name} was not provided")
    except BaseException:
        leave(machines, started=False)
        raise


def install(machines: Machines) -> int:
    """Installs this commit on every worker."""
    try:
        machines.install()
        return 0
    except BaseException:
        leave(machines, started=False)
        raise


def run(machines: Machines, command: list[str]) -> int:
    """Starts the run, and returns."""
    code = machines.start(command)
    if not machines.shell.dry:
        say("`keep` with the same words watches the run and gives the machines back; nothing else does")
    return code


def status(machines: Machines) -> int:
    """Prints the machines' state, and that of the run on each."""
    if machines.shell.dry:
        return machines.shell.run(*machines.queued("describe"))
    state = machines.state()
    print(f"{machines.name} {state}")
    if state == "ACTIVE":
        code, out, err = machines.shell.ask(
            *machines.ssh("all", "bash vilasr/launch/host.sh --state"), timeout=60
        )
        print(out.replace("vilasr-host ", ""), end="")
        if code:
            say(f"not every worker answered ({' '.join(err.split())[-300:]})")
    return 0


def fetch(shell: Shell, options: dict[str, str]) -> int:
    """Copies a run's results and logs to a folder here."""
    if not options["from"].startswith("gs://") or not options["to"]:
        raise Refused("fetch needs --from=gs://... and --to=DIR")
    shell.run("mkdir", "-p", options["to"])
    skip = "--exclude=.*/checkpoints/.*|compile_cache/.*"
    return shell.run("gcloud", "storage", "rsync", "--recursive", skip, options["from"], options["to"])


def main(argv: list[str]) -> int:
    words, command = split_command(argv)
    if not words or words[0] in ("help", "--help", "-h"):
        print(__doc__)
        return 0
    rest, options, flags = read_options(words[1:], OPTIONS, ("spot", "dry-run", "no-fuse"))
    verb = words[0]
    if rest:
        raise Refused(f"unknown word {rest[0]}")
    machines = Machines(Shell("dry-run" in flags), options, "spot" in flags, "no-fuse" not in flags)
    verbs = {
        "keep": lambda: keep(machines, command),
        "create": lambda: create(machines),
        "install": lambda: install(machines),
        "run": lambda: run(machines, command),
        "status": lambda: status(machines),
        "tail": lambda: machines.shell.run(*machines.ssh(options["worker"], "tail -n 100 -F vilasr.log")),
        "stop": lambda: machines.stop(60),
        "fetch": lambda: fetch(machines.shell, options),
        "delete": lambda: machines.shell.run(*machines.delete_words),
    }
    if verb not in verbs:
        raise Refused(f"no verb {verb}")
    if verb != "fetch" and not (options["name"] and options["zone"]):
        raise Refused(f"{verb} needs --name and --zone")
    if verb in ("keep", "run") and not command:
        raise Refused(f"{verb} needs -- and a vilasr command")
    return verbs[verb]()


if __name__ == "__main__":
    run_main(main, "tpu_vm", "see python3 launch/tpu_vm.py help")
