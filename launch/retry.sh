# shellcheck shell=bash
# Sourced by the other scripts: `retry TRIES COMMAND...` runs a command until it succeeds, with pauses that double
# (VILASR_PAUSE seconds after the first failure, default 10). Its code is that of the last try.

retry() {
    local tries="$1" try code pause="${VILASR_PAUSE:-10}"
    shift
    for ((try = 1; ; try++)); do
        code=0
        "$@" || code="$?"
        ((code != 0 && try < tries)) || return "$code"
        echo "$*: failed with code $code; next try in $pause s" >&2
        sleep "$pause"
        pause=$((pause * 2))
    done
}
