#!/usr/bin/env bash
# Starts Apache Kafka, runs every test that needs a real broker, and stops it.
#
# usage: tests/kafka.sh        environment: AIRAN_KAFKA_PORT (default: a free port)
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/airan
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
# shellcheck source=tests/ports.sh
. tests/ports.sh
AIRAN_KAFKA_PORT=${AIRAN_KAFKA_PORT:-$(standing_ports 1)}
export AIRAN_KAFKA_PORT
# A second way to the broker, which a test can cut.
AIRAN_KAFKA_WIRE=$(standing_ports 2 | tr ' ' ':')
export AIRAN_KAFKA_WIRE
AIRAN_KAFKA_DIR=$(mktemp -d)
export AIRAN_KAFKA_DIR
export AIRAN_KAFKA=127.0.0.1:$AIRAN_KAFKA_PORT
# The whole-path case restarts the broker in its middle, through this script.
AIRAN_KAFKA_SCRIPT=$PWD/deploy/kafka/kafka.sh
export AIRAN_KAFKA_SCRIPT

finish() {
    deploy/kafka/kafka.sh kill >/dev/null 2>&1 || true
    rm -rf "$AIRAN_KAFKA_DIR"
}
trap finish EXIT

deploy/kafka/kafka.sh start
# Of the whole workspace, so that the builds of README's test command serve.
cargo test --release --workspace -- kafka --nocapture
