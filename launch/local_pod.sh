#!/usr/bin/env bash
# Runs a command in N processes on this machine that find each other as the hosts of a pod do:
#   bash launch/local_pod.sh [--dry-run] N COMMAND...
#   bash launch/local_pod.sh 4 vilasr train --config=configs/maze_tiny.py --workdir=runs/pod
# Each process sees its own part of the devices and of the rows. Lines are printed with the process number in
# front. A process that dies or hangs is missed by the others within 30 seconds; what still runs VILASR_GRACE seconds
# (default 25) after the first one ended is ended too; run the same command again to resume from the last checkpoint.
set -euo pipefail

usage() {
    sed -n '2,4p' "${BASH_SOURCE[0]}" | cut -c3- >&2
    exit 2
}

dry=false
if [[ "${1:-}" == --dry-run ]]; then
    dry=true
    shift
fi
[[ $# -ge 2 && "$1" =~ ^[1-9][0-9]*$ ]] || usage
count="$1"
shift
grace="${VILASR_GRACE:-25}"
port="${VILASR_PORT:-$((20000 + RANDOM % 20000))}"
# A program that one process read from this cache and the others compiled has hung on CPUs.
unset JAX_COMPILATION_CACHE_DIR
export VILASR_COORDINATOR="localhost:$port" VILASR_NUM_PROCESSES="$count"

if $dry; then
    for ((i = 0; i < count; i++)); do
        echo "VILASR_COORDINATOR=$VILASR_COORDINATOR VILASR_NUM_PROCESSES=$count VILASR_PROCESS_ID=$i $*"
    done
    exit 0
fi

reason() {
    case "$1" in
        134) echo "aborted: another process was missed" ;;
        137) echo "killed, or out of memory" ;;
        143) echo "stop request" ;;
        *) echo "see its last lines above" ;;
    esac
}

pids=()
stop_all() {
    kill -TERM "${pids[@]}" 2>/dev/null || true
}
trap 'stop_all; wait; exit 130' INT
trap 'stop_all; wait; exit 143' TERM

for ((i = 0; i < count; i++)); do
    VILASR_PROCESS_ID="$i" "$@" > >(sed -u "s/^/[$i] /") 2> >(sed -u "s/^/[$i] /" >&2) &
    pids+=("$!")
done

# Waits for each process in the order in which they end.
left="$count" failed="" deadline=0
while ((left > 0)); do
    for i in "${!pids[@]}"; do
        pid="${pids[$i]}"
        if [[ -n "$pid" ]] && ! kill -0 "$pid" 2>/dev/null; then
            code=0
            { wait "$pid"; } 2>/dev/null || code="$?"
            pids[i]=""
            left=$((left - 1))
            if ((code != 0)) && [[ -z "$failed" ]]; then
                failed="$code"
                deadline=$((SECONDS + grace))
                echo "local_pod: process $i of $count ended with code $code ($(reason "$code")); the others have $grace s to notice" >&2
            fi
        fi
    done
    if [[ -n "$failed" ]] && ((left > 0 && SECONDS >= deadline)); then
        echo "local_pod: $left processes still run after $grace s; ending them" >&2
        for pid in "${pids[@]}"; do
            [[ -z "$pid" ]] || kill -KILL "$pid" 2>/dev/null || true
        done
        deadline=$((SECONDS + grace))
    fi
    sleep 0.2
done
if [[ -n "$failed" ]]; then
    echo "local_pod: stopped; run the same command again to resume from the last checkpoint" >&2
    exit "$failed"
fi
