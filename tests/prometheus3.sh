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

# shellcheck source=tests/binary.sh
. tests/binary.sh
prometheus=$(tests/go_build.sh prometheus)
want_python
"$venv/bin/python" tests/prometheus3.py "$airan" "$prometheus"
