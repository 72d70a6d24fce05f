#!/usr/bin/env bash
# Sourced by tests that need an S3 store: moto's server, from a venv of its own in the cache folder, with a bucket `airan`. Who sources it
# has a folder `work`, a list `pids` of what to kill at the end, and `cache`, the cache folder.
# shellcheck disable=SC2154 # these three

# shellcheck source=tests/ports.sh
. tests/ports.sh

# listen NAME COMMAND...: runs COMMAND with a free port as its last argument until it listens there; the port is in $port.
listen() {
    local name=$1
    shift
    port=$(free_ports 1)
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

# start_moto: the store's URL is in $moto.
start_moto() {
    local venv=$cache/venv-s3
    if [ ! -x "$venv/bin/moto_server" ]; then
        python3 -m venv "$venv"
        "$venv/bin/pip" install -q --disable-pip-version-check 'moto[server,s3]==5.2.2'
    fi
    listen moto "$venv/bin/moto_server" -H 127.0.0.1 -p
    moto=http://127.0.0.1:$port
    "$venv/bin/python" - "$moto" <<'PYTHON'
import sys

import boto3

s3 = boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1",
                  aws_access_key_id="test", aws_secret_access_key="test")
s3.create_bucket(Bucket="airan")
PYTHON
}
