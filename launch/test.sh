#!/usr/bin/env bash
# Runs the fast tests on the CPU, in a virtual environment of their own. Arguments go to pytest:
#   bash launch/test.sh                     all fast tests
#   bash launch/test.sh -m slow             the slow ones
#   bash launch/test.sh tests/drawing -x    one room, stop at the first failure
# Two processes share the tests; TEST_WORKERS=0 runs them in one, with its output.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source launch/venv.sh
ensure_venv dev
JAX_PLATFORMS=cpu exec .venv/bin/python -m pytest -n "${TEST_WORKERS:-2}" "$@"
