#!/usr/bin/env bash
# A run on a TPU slice under GKE. Needs kubectl, pointed at a cluster with a TPU node pool and JobSet.
#   bash launch/gke.sh [--dry-run] apply --name=NAME --topology=v5e:8x8 --image=IMAGE --bucket=BUCKET [--spot]
#       [--service-account=NAME] [--restarts=N] -- train --config=configs/vilasr.py:7b,v5e-64
#       --workdir=gs://BUCKET/RUN
#       --config.model.init_from=gs://BUCKET/Qwen2.5-VL-7B-Instruct --config.data.root=gs://BUCKET/data
#   bash launch/gke.sh [--dry-run] tail|delete --name=NAME
# --dry-run prints the manifest, or the command. Build the image with launch/Dockerfile.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

fail() {
    echo "gke: $1; the first lines of launch/gke.sh say how it is used" >&2
    exit 2
}

dry=false verb="" topology="" command=()
export NAME="" IMAGE="" BUCKET="" SPOT=false SERVICE_ACCOUNT=default RESTARTS=20 ACCELERATOR TOPOLOGY HOSTS ARGS
while (($#)); do
    case "$1" in
        --dry-run) dry=true ;;
        --name=*) NAME="${1#*=}" ;;
        --topology=*) topology="${1#*=}" ;;
        --image=*) IMAGE="${1#*=}" ;;
        --bucket=*) BUCKET="${1#*=}" ;;
        --service-account=*) SERVICE_ACCOUNT="${1#*=}" ;;
        --restarts=*) RESTARTS="${1#*=}" ;;
        --spot) SPOT=true ;;
        apply | tail | delete) verb="$1" ;;
        --)
            shift
            command=("$@")
            break
            ;;
        *) fail "unknown word $1" ;;
    esac
    shift
done
[[ -n "$verb" && -n "$NAME" ]] || fail "give apply, tail or delete, and --name"

act() {
    if $dry; then
        echo "$*"
    else
        "$@"
    fi
}

json_list() {
    local word out=""
    for word in "$@"; do
        word="${word//\\/\\\\}"
        out+="${out:+, }\"${word//\"/\\\"}\""
    done
    echo "[$out]"
}

manifest() {
    local text name slice
    slice="$(PYTHONPATH=.. python3 -m vilasr_jax.slices gke "$topology")" || exit 2
    read -r ACCELERATOR TOPOLOGY HOSTS <<<"$slice"
    ARGS="$(json_list "${command[@]}")"
    text="$(<gke_jobset.yaml)"
    for name in NAME IMAGE BUCKET SPOT SERVICE_ACCOUNT RESTARTS ACCELERATOR TOPOLOGY HOSTS ARGS; do
        text="${text//\$\{$name\}/${!name}}"
    done
    $SPOT || text="$(grep -v 'gke-spot: "false"' <<<"$text")"
    echo "$text"
}

case "$verb" in
    apply)
        [[ -n "$topology" && -n "$IMAGE" && -n "$BUCKET" ]] || fail "apply needs --topology, --image and --bucket"
        ((${#command[@]})) || fail "apply needs -- and a vilasr command"
        if $dry; then
            manifest
        else
            manifest | kubectl apply -f -
        fi
        ;;
    tail) act kubectl logs --follow --selector="jobset.sigs.k8s.io/jobset-name=$NAME,batch.kubernetes.io/job-completion-index=0" ;;
    delete) act kubectl delete jobset "$NAME" ;;
esac
