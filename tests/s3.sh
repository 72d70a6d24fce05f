#!/usr/bin/env bash
# Starts moto's S3 server, runs the lake's tests against it, looks at long commands on a terminal (progress.py), and stops it. Needs
# python3 with venv; moto goes into a venv of its own in the cache folder. Naming the binary's crate too keeps the features those of the workspace, whose builds are used.
#
# usage: tests/s3.sh        environment: AIRAN, the binary (default: that of the last release build, built when missing)
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=tests/binary.sh
. tests/binary.sh
test=(cargo test --release -p airan -p airan-lake --lib)
# Built first: the server need not wait for the compiler.
"${test[@]}" --no-run

# shellcheck source=tests/work.sh
. tests/work.sh
# shellcheck source=tests/moto.sh
. tests/moto.sh

start_moto
export AIRAN_S3=$moto
listen deaf python3 tests/s3_proxy.py deaf "$AIRAN_S3"
export AIRAN_S3_DEAF=http://127.0.0.1:$port

"${test[@]}" -- s3_ --nocapture

listen slow python3 tests/s3_proxy.py slow "$AIRAN_S3"
python3 tests/progress.py "$airan" "$AIRAN_S3" "http://127.0.0.1:$port"
