#!/usr/bin/env bash
# Sourced by tests that start programs: a folder `work` for what they write, and a list `pids` of them. When the test ends they are
# killed, the folder goes, and where the test failed the ends of its logs (`$work/*.log`) are shown.

# shellcheck source=tests/ports.sh
. tests/ports.sh

work=$(mktemp -d)
pids=()
finish() {
    local status=$?
    for pid in "${pids[@]}"; do
        kill -9 "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    if [ "$status" -ne 0 ]; then
        for log in "$work"/*.log; do
            echo "--- $log"
            tail -n 40 "$log"
        done
    fi
    rm -rf "$work"
}
trap finish EXIT

# wait_for WHAT COMMAND...: until it succeeds; the test fails where it has not within DEADLINE seconds
wait_for() {
    local what=$1 end=$((SECONDS + DEADLINE))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || { echo "FAIL not within ${DEADLINE}s: $what"; exit 1; }
        sleep 0.5
    done
    echo "ok   $what (${SECONDS}s)"
}
