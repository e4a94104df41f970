# shellcheck shell=bash
# Sourced by the other scripts: `ensure_venv EXTRA` makes .venv in the repository and installs the package with
# that extra ("" for none) in the versions of launch/versions.lock, once for each state of these two files. PYTHON
# names the interpreter (default: python3).

# Large pages for the step's buffers, where the C library offers them: several times fewer page faults.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"

ensure_venv() {
    local extra="$1" python="${PYTHON:-python3}" stamp wanted
    if [[ ! -x .venv/bin/python ]]; then
        if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "vilasr_jax needs Python 3.11 or newer; set PYTHON=/path/to/python3.11 and run again." >&2
            return 2
        fi
        echo "Making .venv with $("$python" --version)"
        "$python" -m venv .venv || return
    fi
    stamp=".venv/.installed-${extra:-core}"
    wanted="$(cat pyproject.toml launch/versions.lock | cksum)"
    if [[ "$(cat "$stamp" 2>/dev/null || true)" != "$wanted" ]]; then
        echo "Installing vilasr_jax${extra:+ with [$extra]} (a few minutes the first time)"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint launch/versions.lock \
            --editable ".${extra:+[$extra]}" || return
        echo "$wanted" >"$stamp"
    fi
}
