#!/usr/bin/env bash
# Builds the documentation site from the repository's Markdown, docstrings and configs:
#   bash launch/docs.sh [FOLDER]      default: build/docs; open FOLDER/index.html
# A broken link ends it with an error.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out="${1:-build/docs}"
if [[ -z "${VILASR_PYTHON:-}" ]]; then
    source launch/venv.sh
    ensure_venv docs
fi
JAX_PLATFORMS=cpu "${VILASR_PYTHON:-.venv/bin/python}" -m sphinx --quiet --fail-on-warning --keep-going \
    -c docs -d "$out/.doctrees" . "$out"
cp "$out/README.html" "$out/index.html"
echo "Open $out/index.html in a browser."
