#!/usr/bin/env bash
# The entry point of every host, on a Cloud TPU VM, in a GKE pod or under SkyPilot alike:
#   bash launch/host.sh [--dry-run] COMMAND --config=configs/X.py --workdir=gs://BUCKET/RUN [--config.key=value ...]
# It mounts the bucket (gcsfuse), so that the workdir is one folder for all hosts and outlives them, keeps compiled
# programs there too, runs `vilasr`, and starts it again when it fails: a run resumes from its last checkpoint.
# Settings: VILASR_RESTARTS (default 20), VILASR_PYTHON (default .venv/bin/python),
# VILASR_MOUNTS (default ~/gcs, where buckets are mounted).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

dry=false
if [[ "${1:-}" == --dry-run ]]; then
    dry=true
    shift
fi
if [[ $# -eq 0 || "$1" == -* ]]; then
    sed -n '3p' "${BASH_SOURCE[0]}" | cut -c3- >&2
    exit 2
fi

act() {
    if $dry; then
        echo "$*"
    else
        "$@"
    fi
}

mounts="${VILASR_MOUNTS:-$HOME/gcs}"
mounted() {
    [[ -r /proc/mounts ]] && grep -qs " $1 " /proc/mounts
}

# gs://BUCKET/PATH becomes MOUNTS/BUCKET/PATH in every argument.
words=() workdir=""
for word in "$@"; do
    if [[ "$word" == *gs://* ]]; then
        bucket="${word#*gs://}"
        bucket="${bucket%%/*}"
        if ! mounted "$mounts/$bucket"; then
            act mkdir -p "$mounts/$bucket"
            act gcsfuse --implicit-dirs --rename-dir-limit=200000 "$bucket" "$mounts/$bucket"
        fi
        word="${word/gs:\/\//$mounts/}"
    fi
    [[ "$word" != --workdir=* ]] || workdir="${word#--workdir=}"
    words+=("$word")
done

if [[ -n "$workdir" ]]; then
    export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-${workdir%/*}/compile_cache}"
    export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="${JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS:-5}"
    $dry && echo "export JAX_COMPILATION_CACHE_DIR=$JAX_COMPILATION_CACHE_DIR"
fi
# Collectives overlap with compute; windowed einsum would cut tensor parallelism into thousands of small permutes.
export LIBTPU_INIT_ARGS="${LIBTPU_INIT_ARGS:---xla_jf_spmd_threshold_for_windowed_einsum_mib=1000000}"

# Hosts of a slice start minutes apart, after a preemption above all.
export VILASR_START_SECONDS="${VILASR_START_SECONDS:-600}"

python="${VILASR_PYTHON:-.venv/bin/python}"
if $dry; then
    echo "$python -m vilasr_jax.cli ${words[*]}"
    exit 0
fi

child=""
trap '[[ -z "$child" ]] || kill -TERM "$child" 2>/dev/null' TERM INT
for ((attempt = 0; ; attempt++)); do
    code=0
    "$python" -m vilasr_jax.cli "${words[@]}" &
    child="$!"
    wait "$child" || code="$?"
    while kill -0 "$child" 2>/dev/null; do # the trap came first: the run saves and ends
        code=0
        wait "$child" || code="$?"
    done
    case "$code" in
        0) exit 0 ;;
        2) # the user's input: trying again would not help; after a failure it may be a device still taken
            if ((attempt == 0)); then
                echo "host $(hostname): the command was refused; see the line above" >&2
                exit 2
            fi
            ;;
        130 | 143)
            echo "host $(hostname): stop request; the same command resumes from the last checkpoint" >&2
            exit "$code"
            ;;
    esac
    if ((attempt >= ${VILASR_RESTARTS:-20})); then
        echo "host $(hostname): ended with code $code after $attempt restarts; giving up" >&2
        exit "$code"
    fi
    echo "host $(hostname): ended with code $code (this host failed, or another one was missed); starting again" >&2
    sleep "${VILASR_PAUSE:-10}"
done
