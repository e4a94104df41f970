#!/usr/bin/env bash
# Cloud TPU VMs from a queued resource to a finished run. Needs the gcloud command, logged in.
#   bash launch/tpu_vm.sh VERB --name=NAME --zone=ZONE [--project=PROJECT] [--dry-run] [...]
# Verbs:
#   create  --type=v5litepod-64 [--spot] [--version=RUNTIME]   request the machines, and wait for them
#   install                                                    this checkout and its packages, on every worker
#   run     -- train --config=... --workdir=gs://BUCKET/RUN    start the run on every worker, in the background
#   tail    [--worker=0]                                       follow a worker's log
#   status                                                     the machines' state, and how the run ended, if it has
#   fetch   --from=gs://BUCKET/RUN --to=DIR                    a run's results (not its checkpoints)
#   keep    --type=... [--spot] -- train ...                   all of the above, again after each preemption
#   delete                                                     give the machines back
# Example:
#   bash launch/tpu_vm.sh keep --name=sft7b --zone=us-west4-a --type=v5litepod-64 --spot -- \
#       train --config=configs/vilasr.py:7b,v5e-64 --workdir=gs://my-bucket/sft7b
#       --config.model.init_from=gs://my-bucket/Qwen2.5-VL-7B-Instruct --config.data.root=gs://my-bucket/data
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "tpu_vm: $1; see bash launch/tpu_vm.sh help" >&2
    exit 2
}

verb="${1:-help}"
[[ $# -eq 0 ]] || shift
name="" zone="" project="" type="" version="" from="" to="" worker=0 spot=false dry=false command=()
while (($#)); do
    case "$1" in
        --name=*) name="${1#*=}" ;;
        --zone=*) zone="${1#*=}" ;;
        --project=*) project="${1#*=}" ;;
        --type=*) type="${1#*=}" ;;
        --version=*) version="${1#*=}" ;;
        --from=*) from="${1#*=}" ;;
        --to=*) to="${1#*=}" ;;
        --worker=*) worker="${1#*=}" ;;
        --spot) spot=true ;;
        --dry-run) dry=true ;;
        --)
            shift
            command=("$@")
            break
            ;;
        *) fail "unknown option $1" ;;
    esac
    shift
done
if [[ "$verb" == help || "$verb" == --help || "$verb" == -h ]]; then
    sed -n '2,/^set /p' "${BASH_SOURCE[0]}" | grep '^#' | cut -c3-
    exit 0
fi
if [[ "$verb" != fetch ]]; then
    [[ -n "$name" && -n "$zone" ]] || fail "$verb needs --name and --zone"
fi
where=("--zone=$zone")
[[ -z "$project" ]] || where+=("--project=$project")

act() {
    local word
    if $dry; then
        for word in "$@"; do
            [[ "$word" =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word="'${word//\'/\'\\\'\'}'"
            printf '%s ' "$word"
        done
        echo
    else
        "$@"
    fi
}

on_workers() { # on_workers WORKER SHELL-COMMAND
    act gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker="$1" --command="$2"
}

resource_state() {
    gcloud compute tpus queued-resources describe "$name" "${where[@]}" --format='value(state.state)' 2>/dev/null ||
        echo NONE
}

runtime() {
    local found
    found="$(python3 -m vilasr_jax.slices runtime "$type")"
    [[ -n "$found" ]] || fail "no runtime known for --type=$type; give --version=RUNTIME"
    echo "$found"
}

create() {
    local options=() state
    [[ -n "$type" ]] || fail "create needs --type, such as v5litepod-64, v6e-16 or v5p-32"
    ! $spot || options+=(--spot)
    [[ -n "$version" ]] || version="$(runtime)"
    act gcloud compute tpus queued-resources create "$name" "${where[@]}" --node-id="$name" \
        --accelerator-type="$type" --runtime-version="$version" "${options[@]}"
    if $dry; then
        echo "# wait until queued-resources describe $name says ACTIVE"
        return
    fi
    while true; do
        state="$(resource_state)"
        case "$state" in
            ACTIVE) break ;;
            FAILED | SUSPENDED | NONE) echo "tpu_vm: $name is $state" >&2 && return 1 ;;
        esac
        echo "tpu_vm: $name is $state; looking again in 30 s"
        sleep 30
    done
}

install() {
    local archive="/tmp/vilasr-$name.tar.gz"
    act git archive --format=tar.gz --output="$archive" HEAD
    act gcloud compute tpus tpu-vm scp "$archive" "$name:vilasr.tar.gz" "${where[@]}" --worker=all
    on_workers all "mkdir -p vilasr && tar -xzf vilasr.tar.gz -C vilasr && bash vilasr/launch/install_host.sh"
}

run() {
    ((${#command[@]})) || fail "run needs -- and a vilasr command"
    local quoted
    printf -v quoted '%q ' "${command[@]}"
    on_workers all "rm -f vilasr.exit; nohup sh -c 'bash vilasr/launch/host.sh $quoted; echo \$? >vilasr.exit' >vilasr.log 2>&1 </dev/null & echo started on \$(hostname)"
}

delete() {
    act gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
}

exit_code() { # empty during the run
    gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=0 \
        --command='cat vilasr.exit 2>/dev/null || true' 2>/dev/null || true
}

keep() {
    if $dry; then
        create
        install
        run
        echo "# every minute: done when worker 0 has vilasr.exit; when $name is not ACTIVE any more: delete, and all again"
        delete
        return
    fi
    local code
    while true; do
        if [[ "$(resource_state)" != ACTIVE ]]; then
            [[ "$(resource_state)" == NONE ]] || delete
            create || continue
            install
            run
        fi
        sleep 60
        code="$(exit_code)"
        if [[ -n "$code" ]]; then
            echo "tpu_vm: the run ended with code $code; giving the machines back"
            delete
            exit "$code"
        fi
        [[ "$(resource_state)" == ACTIVE ]] || echo "tpu_vm: $name was preempted; requesting another, the run resumes from its checkpoint"
    done
}

case "$verb" in
    create) create ;;
    install) install ;;
    run) run ;;
    tail) on_workers "$worker" "tail -n 100 -f vilasr.log" ;;
    status)
        act gcloud compute tpus queued-resources describe "$name" "${where[@]}"
        on_workers 0 "cat vilasr.exit 2>/dev/null || tail -n 5 vilasr.log"
        ;;
    fetch)
        [[ "$from" == gs://* && -n "$to" ]] || fail "fetch needs --from=gs://... and --to=DIR"
        act mkdir -p "$to"
        act gcloud storage rsync --recursive --exclude='.*/checkpoints/.*|compile_cache/.*' "$from" "$to"
        ;;
    keep) keep ;;
    delete) delete ;;
    *) fail "no verb $verb" ;;
esac
