#!/usr/bin/env bash
# A real OpenTelemetry Collector sends to airan: by OTLP/gRPC, by OTLP/HTTP and through a topic of Apache Kafka, while `airan up` is
# killed and started again. What the Collector wrote to a file beside it is what the lake must hold, each point once for each
# of the three ways (tests/collector.py).
#
# The Collector is built from Go modules where it is not yet there (tests/go_build.sh); Kafka comes from deploy/kafka/kafka.sh.
#
# usage: tests/collector.sh        environment: AIRAN, the binary (default: that of the last release build, built when missing)
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=tests/binary.sh
. tests/binary.sh
collector=$(tests/go_build.sh collector)

# shellcheck source=tests/ports.sh
. tests/ports.sh
AIRAN_KAFKA_PORT=${AIRAN_KAFKA_PORT:-$(free_ports 1)}
AIRAN_KAFKA_DIR=$(mktemp -d)
export AIRAN_KAFKA_PORT AIRAN_KAFKA_DIR
finish() {
    deploy/kafka/kafka.sh kill >/dev/null 2>&1 || true
    rm -rf "$AIRAN_KAFKA_DIR"
}
trap finish EXIT
deploy/kafka/kafka.sh start
python3 tests/collector.py "$airan" "$collector" "127.0.0.1:$AIRAN_KAFKA_PORT"
