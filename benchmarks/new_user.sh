#!/usr/bin/env bash
# How long it takes a new user to come from a clone to a report of two files: benchmarks/new_user.sh FIXED MOVING
# The README's first command in a fresh clone and environment, without compiled loops of earlier installations, then its `register --report`.
set -euo pipefail
fixed=$(realpath "$1") moving=$(realpath "$2") repository=$(realpath "$(dirname "$0")/..")
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
told() { echo "$1: $SECONDS s"; }
SECONDS=0
export NUMBA_CACHE_DIR="$place/loops"
git clone --quiet "$repository" "$place/clone" && cd "$place/clone"
told cloned
python -m venv .venv && .venv/bin/pip install --quiet -c constraints.txt .
told installed
source .venv/bin/activate
warpwright demo > /dev/null
told "demo done"
warpwright register "$fixed" "$moving" --output result --report > /dev/null
told "report there"
test -s result/report.html
