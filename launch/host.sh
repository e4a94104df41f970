#!/usr/bin/env bash
# The entry point of every host, on a Cloud TPU VM, in a GKE pod or under SkyPilot alike:
#   bash launch/host.sh [--dry-run | --background] COMMAND --config=configs/X.py --workdir=gs://BUCKET/RUN [...]
#   bash launch/host.sh --state | --stop SECONDS
# It mounts the buckets that are used as folders (Cloud Storage FUSE), so that the workdir is one folder for all hosts
# and outlives them, keeps compiled programs and logs there too, runs `vilasr`, and starts it again when it fails: a run
# resumes from its last checkpoint. --background returns at once (a run that is already there stays), --state says
# what became of that run, --stop ends it: it saves, and is killed after so many seconds.
# Exit codes are those of `vilasr`: 2 refused, 143 stopped after saving (the same command resumes).
# Settings: VILASR_RESTARTS (failures in a row before it gives up, default 20), VILASR_PAUSE (seconds after the first
# of them, default 10; it doubles), VILASR_PYTHON (default .venv/bin/python), VILASR_MOUNTS (where buckets are mounted,
# default ~/gcs), VILASR_FUSE=0 (mount none: gs:// words go to `vilasr` as they are), VILASR_LOG_SECONDS (between two
# copies of the log, default 60).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/retry.sh

python="${VILASR_PYTHON:-.venv/bin/python}"
mounts="${VILASR_MOUNTS:-$HOME/gcs}"
log="$HOME/vilasr.log"
note="$HOME/vilasr" # $note.pid, .exit, .run and .copy: process, exit code, name of the run, where its log is copied
host="host $(hostname):"

# ------------------------------------------------ a run in the background

running() {
    local pid
    pid="$(cat "$note.pid" 2>/dev/null)" && grep -qs host.sh "/proc/$pid/cmdline"
}

state() {
    if running; then
        echo running
    elif [[ -s "$note.exit" ]]; then
        echo "ended $(<"$note.exit")"
    elif [[ -s "$note.pid" ]]; then
        echo lost # killed, or the machine was started again
    else
        echo none
    fi
}

save_log() {
    local target
    target="$(cat "$note.copy" 2>/dev/null)" || return 0
    mkdir -p "$(dirname "$target")" && cp "$log" "$target" || echo "$host $log could not be copied to $target" >&2
}

background() {
    if running; then
        echo "$host the run is already there"
        return
    fi
    rm -f "$note".{exit,copy}
    echo "${VILASR_RUN:-}" >"$note.run"
    nohup setsid bash launch/host.sh "$@" >/dev/null 2>&1 </dev/null &
    echo "$!" >"$note.pid"
    echo "$host started"
}

stop() {
    local pid i
    running || return 0
    pid="$(<"$note.pid")"
    kill -TERM "$pid"
    for ((i = 0; i < $1 * 5; i++)); do
        running || return 0
        sleep 0.2
    done
    kill -KILL -- "-$pid"
    save_log
    echo "$host the run did not end within $1 s and was killed" >&2
}

verb=run
case "${1:-}" in
    --dry-run | --background | --state | --stop)
        verb="${1#--}"
        shift
        ;;
esac
case "$verb" in
    state)
        echo "vilasr-host $(hostname) $(state) $(cat "$note.run" 2>/dev/null)"
        exit
        ;;
    stop)
        stop "${1:-60}"
        exit
        ;;
esac
if [[ $# -eq 0 || "$1" == -* ]]; then
    sed -n '3,4p' "${BASH_SOURCE[0]}" | cut -c3- >&2
    exit 2
fi
if [[ "$verb" == background ]]; then
    background "$@"
    exit
fi
dry=false
[[ "$verb" != dry-run ]] || dry=true

act() {
    if $dry; then
        echo "$*"
    else
        "$@"
    fi
}

# ------------------------------------------------ the log: shown, kept here, and copied to the workdir

keep_log() { # it ends with its input, not with the signals that end the run
    trap '' INT TERM
    exec tee -a "$log"
}

finish() { # the exit code is written last: whoever sees it may delete the machine
    local code="$?" i
    trap '' INT TERM
    [[ -z "$copier" ]] || kill "$copier" 2>/dev/null || true
    exec >&3 2>&4 3>&- 4>&-
    for ((i = 0; i < 50; i++)); do # until all output is in the log
        kill -0 "${tees[@]}" 2>/dev/null || break
        sleep 0.1
    done
    save_log
    echo "$code" >"$note.exit"
}

tees=() copier=""
if ! $dry; then
    rm -f "$note.copy"
    : >"$log"
    exec 3>&1 4>&2
    exec > >(keep_log 3>&- 4>&-)
    tees=("$!")
    exec 2> >(keep_log >&4 3>&- 4>&-)
    tees+=("$!")
    trap finish EXIT
fi

# ------------------------------------------------ buckets as folders

mounted() {
    grep -qs " $1 " /proc/mounts
}

mount_bucket() {
    if ! mounted "$mounts/$1"; then
        act mkdir -p "$mounts/$1"
        # What one host has written all others see at once: nothing about files is cached.
        retry 5 act gcsfuse --implicit-dirs --rename-dir-limit=200000 --metadata-cache-ttl-secs=0 \
            --metadata-cache-negative-ttl-secs=0 "$1" "$mounts/$1" || return 1
    fi
}

# Every gs://BUCKET/PATH of a word becomes MOUNTS/BUCKET/PATH; first weights are read from the bucket itself.
words=() workdir=""
for word in "$@"; do
    if [[ "${VILASR_FUSE:-1}" != 0 && "$word" != --config.model.init_from=* ]]; then
        while [[ "$word" == *gs://* ]]; do
            bucket="${word#*gs://}"
            bucket="${bucket%%[!a-z0-9._-]*}"
            if [[ -z "$bucket" ]]; then
                echo "$host $word: gs:// must be followed by a bucket" >&2
                exit 2
            fi
            mount_bucket "$bucket" || exit 1
            word="${word/gs:\/\//"$mounts/"}"
        done
    fi
    [[ "$word" != --workdir=* ]] || workdir="${word#--workdir=}"
    words+=("$word")
done

# ------------------------------------------------ settings of the run

if [[ -n "$workdir" ]]; then
    export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-${workdir%/*}/compile_cache}"
    export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="${JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS:-5}"
    $dry && echo "export JAX_COMPILATION_CACHE_DIR=$JAX_COMPILATION_CACHE_DIR"
fi
# Collectives overlap with compute; windowed einsum would cut tensor parallelism into thousands of small permutes.
export LIBTPU_INIT_ARGS="${LIBTPU_INIT_ARGS:---xla_jf_spmd_threshold_for_windowed_einsum_mib=1000000}"
# Hosts of a slice start minutes apart, after a preemption above all.
export VILASR_START_SECONDS="${VILASR_START_SECONDS:-600}"
if $dry; then
    echo "$python -m vilasr_jax.cli ${words[*]}"
    exit 0
fi
if [[ -n "$workdir" && "$workdir" != *://* ]]; then
    echo "$workdir/logs/$(hostname)-$(date -u +%Y%m%dT%H%M%S).log" >"$note.copy"
    while sleep "${VILASR_LOG_SECONDS:-60}" >/dev/null 2>&1; do
        save_log
    done 3>&- 4>&- &
    copier="$!"
fi

# ------------------------------------------------ the run, again after a failure

child="" stopped=false
trap 'stopped=true; [[ -z "$child" ]] || kill -TERM "$child" 2>/dev/null' TERM INT

run_child() { # run_child COMMAND...: its exit code, even when a signal interrupts the wait
    local code=0
    "$@" 3>&- 4>&- &
    child="$!"
    wait "$child" || code="$?"
    while kill -0 "$child" 2>/dev/null; do
        code=0
        wait "$child" || code="$?"
    done
    child=""
    return "$code"
}

failures=0 pause="${VILASR_PAUSE:-10}"
while true; do
    began="$SECONDS" code=0
    run_child "$python" -m vilasr_jax.cli "${words[@]}" || code="$?"
    [[ "$code" != 0 ]] || exit 0
    if $stopped || ((code == 130 || code == 143)); then
        echo "$host stop request; the same command resumes from the last checkpoint" >&2
        exit "$((code == 130 ? 130 : 143))"
    fi
    if ((SECONDS - began > 600)); then # it worked for a while: count from the start
        failures=0 pause="${VILASR_PAUSE:-10}"
    fi
    if ((code == 2 && failures == 0)); then # after a failure it may be a device that is still taken
        echo "$host the command was refused; see the line above" >&2
        exit 2
    fi
    if ((failures >= ${VILASR_RESTARTS:-20})); then
        echo "$host ended with code $code after $failures restarts; giving up" >&2
        exit "$code"
    fi
    failures=$((failures + 1))
    echo "$host ended with code $code (this host failed, or another one was missed); next try in $pause s" >&2
    run_child sleep "$pause" || true
    ! $stopped || exit 143
    pause=$((pause < 150 ? pause * 2 : 300))
done
