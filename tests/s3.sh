#!/usr/bin/env bash
# Starts moto's S3 server, runs the lake's tests against it, and stops it. Needs python3 with venv; moto goes into a venv of
# its own in the cache folder. Naming the binary's crate too keeps the features those of the workspace, whose builds are used.
#
# usage: tests/s3.sh
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/airan
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
venv=$cache/venv-s3
if [ ! -x "$venv/bin/moto_server" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check 'moto[server,s3]==5.2.2'
fi

test=(cargo test --release -p airan -p airan-lake --lib)
# Built first: the server need not wait for the compiler.
"${test[@]}" --no-run

work=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap finish EXIT

# start NAME COMMAND...: runs COMMAND with a free port as its last argument until it listens there; the port is in $port.
start() {
    local name=$1
    shift
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    "$@" "$port" >"$work/$name.log" 2>&1 &
    pids+=($!)
    for _ in $(seq 150); do
        if (: >"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            return
        fi
        kill -0 "${pids[-1]}" 2>/dev/null || break
        sleep 0.2
    done
    echo "$name does not listen on port $port:"
    cat "$work/$name.log"
    exit 1
}

start moto "$venv/bin/moto_server" -H 127.0.0.1 -p
export AIRAN_S3=http://127.0.0.1:$port
"$venv/bin/python" - "$AIRAN_S3" <<'PYTHON'
import sys

import boto3

s3 = boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1",
                  aws_access_key_id="test", aws_secret_access_key="test")
s3.create_bucket(Bucket="airan")
PYTHON

start deaf python3 tests/deaf_s3.py "$AIRAN_S3"
export AIRAN_S3_DEAF=http://127.0.0.1:$port

"${test[@]}" -- s3_ --nocapture
