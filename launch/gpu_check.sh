#!/usr/bin/env bash
# What a machine with one NVIDIA GPU of 80 GiB or more does with published sizes, in under ten minutes:
#   bash launch/gpu_check.sh FOLDER [--size=3b,7b] [--tokens=8192]
# Sampling in bfloat16, and by transformers with SDPA (where torch is installed), a supervised step of one packed
# row with its MFU, and a step of RL; all with random weights. Tables are printed, and written to FOLDER as JSON.
# It makes .venv (see launch/venv.sh), unless VILASR names an installed command.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
sizes="3b" tokens=8192 out=""
for word in "$@"; do
    case "$word" in
        --size=*) sizes="${word#--size=}" ;;
        --tokens=*) tokens="${word#--tokens=}" ;;
        -*)
            echo "gpu_check.sh: no option $word; there are: --size=SIZE,... --tokens=N" >&2
            exit 2
            ;;
        *) out="$word" ;;
    esac
done
if [[ -z "$out" ]]; then
    echo "gpu_check.sh: name a folder for the results; it also holds the weights (7 GiB of 3b, 16 GiB of 7b)" >&2
    exit 2
fi
vilasr="${VILASR:-}"
if [[ -z "$vilasr" ]]; then
    source launch/venv.sh
    ensure_venv gpu
    vilasr=.venv/bin/vilasr
fi
mkdir -p "$out"
began=$SECONDS
for size in ${sizes//,/ }; do
    echo "== $size: sampling"
    "$vilasr" bench real --size="$size" --weights=bf16 --workdir="$out/weights" --json="$out/$size-sampling.json"
    echo "== $size: training"
    "$vilasr" bench steps --size="$size" --tokens="$tokens" --json="$out/$size-training.json"
done
echo "Done in $((SECONDS - began)) s; results: $out/*.json"
