#!/usr/bin/env bash
# From a clone to a trained model and its report, on one CPU:
#   bash launch/quickstart.sh [WORKDIR] [--config.key=value ...]
# Run it again to resume where it was stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/venv.sh
ensure_venv ""
workdir="runs/quickstart"
if [[ $# -gt 0 && "$1" != --* ]]; then
    workdir="$1"
    shift
fi
.venv/bin/vilasr train --config=configs/maze_tiny.py --workdir="$workdir" "$@"
echo
echo "Open $workdir/report.html in a browser to see curves, scores and the drawn conversations."
