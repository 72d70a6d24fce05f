#!/usr/bin/env bash
# Runs the crash harness: kills airan processes while rows are sent, and compares what was acknowledged with what the lake has.
# Starts what a mode needs (Apache Kafka, moto's S3 server) and stops it. Over Kafka victims are cut off from the broker too, the broker is
# started again, and committed records are deleted.
#
# usage: tests/crash.sh [MODE TIME]...      MODE: local, s3, kafka, kafka-s3, harm; TIME: 90s, 10m, 2h
#
# Ends with the totals of the results file: cases, kills, other faults, and by mode how often each named point was died at and which
# never was.
#
# Without arguments: a check that the harness finds what it is there for (CI runs that), then three minutes of `local` and two of
# `kafka`. Environment:
#   AIRAN_CRASH_OUT   results file, appended to (default: crash-results.jsonl in the cache folder)
#   AIRAN_CRASH_SEED  seed (default: of the time); a seed that is in the results file goes on after its last case
#   AIRAN_CRASH_ARGS  further arguments of airan-crash, as --require-points: fails if a point of a mode was never died at
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/airan
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
out=${AIRAN_CRASH_OUT:-$cache/crash-results.jsonl}
seed=${AIRAN_CRASH_SEED:-$(date +%s)}
[ $# -gt 0 ] || set -- harm 0s local 3m kafka 2m
# Of the whole workspace where that was built before; naming the binary's crate keeps its features.
cargo build --release -p airan -p airan-crash

work=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    [ -z "${AIRAN_KAFKA_DIR:-}" ] || deploy/kafka/kafka.sh kill >/dev/null 2>&1 || true
    # Failed cases stay.
    [ -n "$(ls -A "$work/cases" 2>/dev/null)" ] || rm -rf "$work"
}
trap finish EXIT

# shellcheck source=tests/moto.sh
. tests/moto.sh

kafka=()
start_kafka() {
    [ ${#kafka[@]} -eq 0 ] || return 0
    AIRAN_KAFKA_DIR=$work/kafka
    # The last four are ways to it that can be cut: for a gateway and three processors.
    read -r AIRAN_KAFKA_PORT AIRAN_KAFKA_WIRE < <(standing_ports 9 | sed -E 's/ ([0-9]+) ([0-9]+)/ \1:\2/g')
    export AIRAN_KAFKA_PORT AIRAN_KAFKA_DIR AIRAN_KAFKA_WIRE
    deploy/kafka/kafka.sh start
    kafka=(--kafka "127.0.0.1:$AIRAN_KAFKA_PORT" --kafka-script "$PWD/deploy/kafka/kafka.sh")
    local wire
    for wire in $AIRAN_KAFKA_WIRE; do kafka+=(--wire "$wire"); done
}

s3=()
start_s3() {
    [ ${#s3[@]} -eq 0 ] || return 0
    start_moto
    s3=(--s3 "$moto")
}

# A harness that cannot fail proves nothing: a binary that loses the end of its log at each start, and one that forgets at once
# which rows it has seen. Both must be found out.
# shellcheck disable=SC2016 # for the shells of the wrappers
harm() {
    local wrapper=$work/airan
    local lose='for log in data/log/partition-*; do newest=$(ls "$log"/*.log | tail -1); truncate -s -3000 "$newest" || true; done'
    local forget='grep -q foreign_memory up.yaml || sed -i "s/^processor: {/processor: {identities: {foreign_memory: 1ms}, /" up.yaml'
    while read -r word sabotage; do
        printf '#!/usr/bin/env bash\nif [ "$1" = up ]; then { %s; } 2>/dev/null; fi\nexec "%s" "$@"\n' \
            "$sabotage" "$CARGO_TARGET_DIR/release/airan" >"$wrapper"
        chmod +x "$wrapper"
        if "$CARGO_TARGET_DIR/release/airan-crash" --airan "$wrapper" --cases 1 --seed 1 --out "$work/harm-$word.jsonl" \
            --work "$work/harm" >"$work/harm.log" || ! grep -q "^    $word (" "$work/harm.log"; then
            echo "rows are made to be $word, and the harness does not say so:"
            cat "$work/harm.log"
            return 1
        fi
        echo "rows that are made to be $word are found: $(grep -c "^    $word (" "$work/harm.log") of 1 case"
    done < <(printf 'lost %s\ndoubled %s\n' "$lose" "$forget")
}

# Foreign readers must see the same rows, where there are some (.ci/run installs them).
delta=()
if "$cache/venv/bin/python" -c 'import deltalake, pyarrow.dataset' 2>/dev/null; then
    delta=(--delta "$cache/venv/bin/python")
else
    echo "NOT TESTED: what deltalake sees; $cache/venv lacks it"
fi

code=0
while [ $# -gt 0 ]; do
    mode=$1 time=$2
    shift 2
    if [ "$mode" = harm ]; then
        harm || code=1
        continue
    fi
    case $mode in kafka*) start_kafka ;; esac
    case $mode in *s3) start_s3 ;; esac
    # shellcheck disable=SC2086 # words of further arguments
    "$CARGO_TARGET_DIR/release/airan-crash" --mode "$mode" --for "$time" --seed "$seed" --out "$out" --work "$work/cases" \
        "${kafka[@]}" "${s3[@]}" "${delta[@]}" ${AIRAN_CRASH_ARGS:-} || code=1
done
if [ -s "$out" ]; then
    echo "all in $out:"
    # Earlier runs have failed or not for themselves.
    "$CARGO_TARGET_DIR/release/airan-crash" --totals --out "$out" || true
fi
[ $code -eq 0 ]
