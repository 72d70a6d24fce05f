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
