#!/usr/bin/env bash
# Compaction at its default settings, over more than one file of it can hold: random rows of one past hour are pushed (noise_rows.py) until
# their many small files have more than 600 MB of Parquet; `airan lake compact` makes files of 128 to 512 MB of them, whose rows,
# row groups and files are sorted and do not overlap, as pyarrow reads them (compact_size.py). Prints what it took, and fails where that is
# more memory than README says.
#
# Needs curl, python3 with venv, about 2 GB of disk and 1 GB of memory; pyarrow goes into a venv in the cache folder.
#
# usage: tests/compact_size.sh     environment: AIRAN, the binary (default: that of the last release build, built when missing)
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=tests/binary.sh
. tests/binary.sh
want_tools "curl python3-venv" curl python3
want_python

# Of Parquet.
MIB=${MIB:-640}
# README's bound on the memory of a merge.
MOST_MIB=1536
DEADLINE=240

# shellcheck source=tests/work.sh
. tests/work.sh

read -r http grpc admin < <(free_ports 3)
{
    echo 'regions: [{name: north, jurisdiction: local, sites: ['
    for node in $(seq 0 19); do echo "  {name: north-$(printf %03d "$node"), nodes: [node-$node]},"; done
    echo '  {name: home, nodes: [compact-size]}]}]'
} >"$work/inventory.yaml"
# One pipeline that reads other rows: these are only stored.
mkdir "$work/pipelines"
cp -r pipelines/timing_health "$work/pipelines"
cat >"$work/up.yaml" <<YAML
node: compact-size
bus: {partitions: 2}
admin: {listen: "127.0.0.1:$admin"}
inventory: {file: "$work/inventory.yaml"}
gateway: {http: "127.0.0.1:$http", grpc: "127.0.0.1:$grpc"}
pipelines: {folder: "$work/pipelines"}
processor: {commit: {interval: 1s, bytes: 17MiB}}
YAML
"$airan" up --config "$work/up.yaml" --data "$work/data" >"$work/airan.log" 2>&1 &
up=$!
pids+=("$up")
settings=(--config "$work/up.yaml" --data "$work/data")
count() { "$airan" query "${settings[@]}" --format csv "SELECT count(*) FROM accelerator" | tail -n 1; }
wait_for "airan is ready" curl -fsS "http://127.0.0.1:$admin/readyz"
rows=$("$venv/bin/python" tests/noise_rows.py "http://127.0.0.1:$http" "$MIB")
all_there() { [ "$(count)" = "$rows" ]; }
wait_for "$rows rows of one hour are in the lake" all_there
kill -TERM "$up"
wait "$up"
# All of it is in the lake.
rm -rf "$work/data/log"
lake=$work/data/lake
"$venv/bin/python" tests/compact_size.py facts "$lake" accelerator >"$work/before.json"
"$venv/bin/python" tests/measured.py "$MOST_MIB" "$airan" lake compact accelerator "${settings[@]}"
"$venv/bin/python" tests/compact_size.py check "$lake" accelerator "$work/before.json"
all_there || { echo "FAIL compaction left $(count) rows"; exit 1; }
"$airan" lake check "${settings[@]}"
again=$("$airan" lake compact accelerator "${settings[@]}")
[ "$again" = "0 files with 0 rows and 0 bytes became 0 files with 0 rows and 0 bytes" ] || { echo "FAIL merged once more: $again"; exit 1; }
