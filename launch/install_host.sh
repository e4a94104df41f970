#!/usr/bin/env bash
# Makes a fresh host ready: .venv with the package for TPUs, in the versions of launch/versions.lock.
#   bash launch/install_host.sh [--dry-run] [--fuse]
# --fuse also installs Cloud Storage FUSE, for buckets that are used as folders. Other programs that install packages
# (a fresh machine updates itself) are waited for.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/retry.sh
source launch/venv.sh

dry=false fuse=false
for word in "$@"; do
    case "$word" in
        --dry-run) dry=true ;;
        --fuse) fuse=true ;;
        *) echo "install_host: unknown word $word" >&2 && exit 2 ;;
    esac
done

act() {
    if $dry; then
        echo "$*"
    else
        "$@"
    fi
}

apt() { # the option waits for dpkg's lock, the tries for that of the lists
    retry 6 act sudo env DEBIAN_FRONTEND=noninteractive apt-get -qy -o DPkg::Lock::Timeout=600 "$@"
}

if $fuse && ! command -v gcsfuse >/dev/null; then
    version="${VILASR_GCSFUSE_VERSION:-3.7.1}"
    package="gcsfuse_${version}_$(dpkg --print-architecture).deb"
    address="https://github.com/GoogleCloudPlatform/gcsfuse/releases/download/v$version/$package"
    retry 6 act curl --fail --silent --show-error --location --output "/tmp/$package" "$address"
    apt update
    apt install "/tmp/$package"
fi
if [[ -z "${PYTHON:-}" ]] && ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    apt update
    if ! apt-cache show python3.11-venv >/dev/null 2>&1; then
        apt install software-properties-common
        retry 6 act sudo add-apt-repository -y ppa:deadsnakes/ppa
        apt update
    fi
    apt install python3.11 python3.11-venv
    export PYTHON=python3.11
fi
if $dry; then
    echo "make .venv with the package and its extra [tpu]"
else
    retry 3 ensure_venv tpu
fi
