#!/usr/bin/env bash
# Large files, as a reader of their statistics sees them: rows of two dates, more of each than one row group may hold (1 Mi), are pushed
# by pyarrow (many_rows.py) and compacted; then each date is one file of several row groups that do not overlap (sorted.py). Then rows of
# both dates come late and overlap them, and a second compaction leaves files again that do not.
#
# Needs curl, and python3 with venv; pyarrow goes into a venv in the cache folder.
#
# usage: tests/row_groups.sh     environment: AIRAN, the binary (default: that of the last release build, built when missing)
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=tests/binary.sh
. tests/binary.sh
want_tools "curl python3-venv" curl python3
want_python

# A date's: a full row group and the beginning of another.
ROWS=1200000
# Those that come late, of each date.
LATE=100000
DEADLINE=180

# shellcheck source=tests/work.sh
. tests/work.sh

read -r http grpc admin < <(free_ports 3)
cat >"$work/inventory.yaml" <<'YAML'
regions:
  - name: north
    jurisdiction: local
    sites:
      - {name: north-001, nodes: [node-0, node-3]}
      - {name: north-002, nodes: [node-1]}
      - {name: north-003, nodes: [node-2, node-4, node-5]}
      - {name: home, nodes: [row-groups]}
YAML
cat >"$work/up.yaml" <<YAML
node: row-groups
bus: {partitions: 2}
admin: {listen: "127.0.0.1:$admin"}
inventory: {file: "$work/inventory.yaml"}
gateway: {http: "127.0.0.1:$http", grpc: "127.0.0.1:$grpc"}
processor: {commit: {interval: 5s}}
YAML
# start: runs airan, as `up`.
start() {
    "$airan" up --config "$work/up.yaml" --data "$work/data" >"$work/airan.log" 2>&1 &
    up=$!
    pids+=("$up")
    wait_for "airan is ready" curl -fsS "http://127.0.0.1:$admin/readyz"
}
stop() {
    kill -TERM "$up"
    wait "$up"
}
count() { "$airan" query --config "$work/up.yaml" --data "$work/data" --format csv "SELECT count(*) FROM container" | tail -n 1; }
start
"$venv/bin/python" tests/many_rows.py "http://127.0.0.1:$http" "$ROWS"
wanted=$((2 * ROWS))
all_there() { [ "$(count)" = "$wanted" ]; }
wait_for "$wanted rows of two dates are in the lake" all_there
stop
# compact: once, and no row is lost.
compact() {
    "$airan" lake compact container --config "$work/up.yaml" --data "$work/data"
    all_there || { echo "FAIL compaction left $(count) rows"; exit 1; }
    "$airan" lake check --config "$work/up.yaml" --data "$work/data"
}
compact
order() { "$venv/bin/python" tests/sorted.py "$work/data/lake" container "$ROWS" 2 2 apart; }
order

start
"$venv/bin/python" tests/many_rows.py "http://127.0.0.1:$http" "$LATE" late
wanted=$((wanted + 2 * LATE))
wait_for "$((2 * LATE)) late rows are in the lake" all_there
stop
if order 2>"$work/order.log"; then
    echo "FAIL late rows were to overlap what had been merged"
    exit 1
fi
grep -q overlaps "$work/order.log" || { cat "$work/order.log"; exit 1; }
compact
order
