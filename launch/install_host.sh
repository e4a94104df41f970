#!/usr/bin/env bash
# Makes a fresh host ready: gcsfuse for buckets, and .venv with the package for TPUs.
#   bash launch/install_host.sh [--dry-run]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/venv.sh

if [[ "${1:-}" == --dry-run ]]; then
    echo "apt-get install gcsfuse, unless it is there"
    echo "make .venv with the package and its extra [tpu]"
    exit 0
fi
if ! command -v gcsfuse >/dev/null; then
    sudo apt-get -q update
    if ! sudo apt-get -qy install gcsfuse; then
        echo "install_host: add the package source of gcsfuse (its installation guide says how), then run this again" >&2
        exit 1
    fi
fi
if [[ -z "${PYTHON:-}" ]] && ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    sudo apt-get -qy install software-properties-common
    sudo add-apt-repository -y ppa:deadsnakes/ppa
    sudo apt-get -qy install python3.11 python3.11-venv
    export PYTHON=python3.11
fi
ensure_venv tpu
