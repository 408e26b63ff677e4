#!/usr/bin/env bash
# Starts the whole platform of config.json on this machine. ./start.sh --help says more; docs/config.md the rest.
set -euo pipefail
cd "$(dirname "$0")"
. ./environment.sh
prepare_environment requirements.txt
exec "$VENV/bin/python" -m omni.launch "$@"
