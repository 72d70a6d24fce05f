#!/usr/bin/env bash
# A real Prometheus 3 sends to airan by remote write 2.0: samples, native histograms with exponential and with custom bounds, start
# timestamps and metadata, while `airan up` is killed and started again; what Prometheus has is what the lake must hold
# (tests/prometheus3.py). The Prometheus of tests/readers.sh sends 1.0.
#
# Prometheus is built from Go modules where it is not yet there (tests/go_build.sh).
#
# usage: tests/prometheus3.sh        environment: AIRAN, the binary (default: that of the last release build, built when missing)
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/airan
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
airan=${AIRAN:-$CARGO_TARGET_DIR/release/airan}
[ -x "$airan" ] || cargo build --release -p airan
prometheus=$(tests/go_build.sh prometheus)
venv=$cache/venv
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install -q --disable-pip-version-check -r tests/requirements.txt
"$venv/bin/python" tests/prometheus3.py "$airan" "$prometheus"
