"""A cloud of fake programs: `gcloud` with queued resources, and workers that are folders of this machine.

What `gcloud compute tpus tpu-vm ssh` is given runs for real in a shell of its own with HOME in that folder,
so that launch/host.sh and every level of quoting are the real ones; `vilasr` does what a plan says.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACE = ("--name=one", "--zone=us-west4-a")
WATCH = "keep"  # the verb of tpu_vm.py that watches
JOB = ("train", "--config=configs/maze_tiny.py", "--workdir=gs://my-bucket/runs/one")

GCLOUD = """
echo "$*" >>$CLOUD/log
pop() { # pop FILE: whether there is a line left in it; prints and removes it
    [[ -s $CLOUD/$1 ]] && head -n 1 $CLOUD/$1 && sed -i 1d $CLOUD/$1
}
case "$*" in
    *"queued-resources create"*)
        if reason=$(pop create_fails); then echo "ERROR: $reason" >&2; exit 1; fi
        [[ ! -e $CLOUD/state ]] || { echo "ERROR: ALREADY_EXISTS: one" >&2; exit 1; }
        echo ACTIVE >$CLOUD/state
        [[ ! -e $CLOUD/slow_create ]] || sleep 30 ;;
    *"queued-resources delete"*)
        if reason=$(pop delete_fails); then echo "ERROR: $reason" >&2; exit 1; fi
        for home in $CLOUD/host-*; do # a deleted machine loses its programs and files
            [[ ! -e $home/vilasr.pid ]] || kill -KILL -- -$(cat $home/vilasr.pid) 2>/dev/null
            find $home -mindepth 1 ! -path "$home/kept*" -delete 2>/dev/null
        done
        [[ -e $CLOUD/state ]] || { echo "ERROR: NOT_FOUND: one" >&2; exit 1; }
        rm $CLOUD/state ;;
    *"queued-resources describe"*)
        if reason=$(pop describe_fails); then echo "ERROR: $reason" >&2; exit 1; fi
        [[ -e $CLOUD/state ]] || { echo "ERROR: NOT_FOUND: Resource 'one' was not found" >&2; exit 1; }
        pop next_states >$CLOUD/new && mv $CLOUD/new $CLOUD/state
        cat $CLOUD/state ;;
    *"tpu-vm scp"*)
        if reason=$(pop scp_fails); then echo "ERROR: $reason" >&2; exit 1; fi ;;
    *"tpu-vm ssh"*)
        for word in "$@"; do
            case "$word" in
                --command=*) command="${word#--command=}" ;;
                --worker=*) worker="${word#--worker=}" ;;
            esac
        done
        code=0
        for home in $CLOUD/host-*; do
            [[ $worker == all || $home == *-$worker ]] || continue
            [[ ! -e $home/kept.silent ]] || { code=255; continue; }
            if [[ $command == *install_host.sh* ]]; then
                ln -sfn $ROOT $home/vilasr
            else
                (cd $home && HOME=$home ssh host "$command") || code=$?
            fi
        done
        exit $code ;;
esac
"""
SSH = 'shift; bash -c "$*"'  # a remote shell reads the command once
VILASR = """
printf '%s\\n' "$@" >>$HOME/kept.words; echo end >>$HOME/kept.words
n=$(cat $HOME/kept.count 2>/dev/null || echo 0); echo $((n + 1)) >$HOME/kept.count
actions=($(cat $HOME/kept.plan)); action=${actions[n]:-${actions[-1]}}
echo "attempt $n"
if [[ $action == wait* ]]; then # until SIGTERM, or until the test says so
    trap 'echo saved; exit 143' TERM
    for ((i = 0; i < 300; i++)); do sleep 0.1; [[ ! -e $CLOUD/finish ]] || exit 0; done
fi
exit $action
"""


def write_program(folder, name, text):
    """Makes a shell program of that name."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
    (folder / name).chmod(0o755)


class Cloud:
    """Fake machines in a folder; `plan` says how `vilasr` ends on each start, worker by worker."""

    def __init__(self, folder, *plans):
        self.folder, self.bin = folder, folder / "bin"
        self.hosts = len(plans)
        for name, text in (("gcloud", GCLOUD), ("ssh", SSH), ("vilasr_python", VILASR)):
            write_program(self.bin, name, text)
        write_program(self.bin, "git", "true")
        write_program(self.bin, "hostname", 'basename "$HOME"')
        write_program(self.bin, "gcsfuse", f'echo "$*" >>{folder}/mounts')
        for number, plan in enumerate(plans):
            (folder / f"host-{number}").mkdir()
            (folder / f"host-{number}" / "kept.plan").write_text(plan)

    @property
    def environ(self):
        outside = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
        return outside | {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "CLOUD": str(self.folder),
            "ROOT": str(ROOT),
            "VILASR_PYTHON": str(self.bin / "vilasr_python"),
            "VILASR_MOUNTS": str(self.folder / "gcs"),
            "VILASR_LOG_SECONDS": "0.2",
            "VILASR_LOOK_SECONDS": "0.2",
            "VILASR_RETRY_SECONDS": "0.01",
            "VILASR_RESTARTS": "0",
        }

    def start(self, verb, *options, command=JOB, **env):
        words = [sys.executable, "launch/tpu_vm.py", verb, *PLACE, *options]
        if verb in (WATCH, "run"):
            words += [f"--hosts={self.hosts}", "--type=v6e-8", "--", *command]
        return subprocess.Popen(
            words,
            cwd=ROOT,
            env=self.environ | env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, verb, *options, **more):
        """Exit code and output."""
        process = self.start(verb, *options, **more)
        out = process.communicate(timeout=60)[0]
        return process.returncode, out

    def wait(self, process, when):
        """Waits until a condition holds; fails when the process ends first."""
        deadline = time.monotonic() + 30
        while not when():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def interrupt(self, process, when, number=signal.SIGINT):
        """Sends a signal once a condition holds; returns exit code and output."""
        self.wait(process, when)
        process.send_signal(number)
        out = process.communicate(timeout=60)[0]
        return process.returncode, out

    def set(self, name, *lines):
        """Writes a file that `gcloud` reads."""
        (self.folder / name).write_text("".join(f"{line}\n" for line in lines))

    def calls(self, part):
        """How often gcloud was called with these words."""
        return self.log.count(part)

    @property
    def log(self):
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def starts(self, host):
        """How often `vilasr` was started on a worker."""
        path = self.folder / f"host-{host}" / "kept.count"
        return int(path.read_text() or 0) if path.exists() else 0  # empty while the shell writes it

    def words(self, host):
        """The command line of the last start on a worker."""
        text = (self.folder / f"host-{host}" / "kept.words").read_text()
        return text.removesuffix("\nend\n").rpartition("end\n")[2].split("\n")[2:]

    def saved_logs(self):
        """Name to text of the logs in the bucket."""
        folder = self.folder / "gcs" / "my-bucket" / "runs" / "one" / "logs"
        return {path.name: path.read_text() for path in sorted(folder.glob("*.log"))}

    def end(self):
        """Ends all programs that workers still run."""
        self.set("finish")
        for note in self.folder.glob("host-*/vilasr.pid"):
            subprocess.run(["bash", "-c", f"kill -KILL -- -{note.read_text().strip()}"], capture_output=True)
