#!/usr/bin/env bash
# What airan writes and serves, read by the programs that others will read it with: Prometheus and promtool on /metrics while
# `airan up` runs, compared with the lake, and what Prometheus sends by remote write, also of a target that stops (remote_write.py); the
# shipped rules and dashboards; the pyarrow example that pushes (arrow_push.py); then DuckDB, Polars, pandas, pyarrow and deltalake on
# the lake's files and Delta tables (readers.py), whose logs begin with a checkpoint, and every value of every column (values.py),
# compared with `airan query`; the order of rows in what `airan lake compact` made (sorted.py) and the report of `airan lake erase`
# (erasure.py).
#
# Needs prometheus and promtool (Debian's package `prometheus`), curl, and python3 with venv; the Python readers go into a venv
# in the cache folder.
#
# usage: tests/readers.sh        environment: AIRAN, the binary (default: that of the last release build, built when missing)
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=tests/binary.sh
. tests/binary.sh
want_tools "prometheus curl python3-venv" prometheus promtool curl python3
want_python

# How long any condition may take: the machine may be building beside us.
DEADLINE=120
# Enough that each date has a file with descriptions once it is compacted (readers.py).
ROWS=51000

# shellcheck source=tests/work.sh
. tests/work.sh

# until WHAT COMMAND...: runs COMMAND until it succeeds; ends the test when it has not before the deadline.
until_it() {
    local what=$1 end=$((SECONDS + DEADLINE))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$end" ]; then
            echo "FAIL not within ${DEADLINE}s: $what"
            exit 1
        fi
        sleep 0.2
    done
    echo "ok   $what"
}

# The value of a Python EXPRESSION over the JSON on stdin, which it calls `x`.
json() { python3 -c "import json, sys; x = json.load(sys.stdin); print($1)"; }

query() { "$airan" query --config "$work/up.yaml" --data "$work/data" --format json "$1"; }

read -r http grpc admin prom target < <(free_ports 5)

cat >"$work/up.yaml" <<YAML
node: readers
bus: {partitions: 2}
admin: {listen: "127.0.0.1:$admin"}
gateway: {http: "127.0.0.1:$http", grpc: "127.0.0.1:$grpc", tick: 1s}
processor: {commit: {interval: 1s}, publish_every: 2s}
lake: {checkpoint_interval: 2}
agent: {host: {interval: 1s}, links: {interval: 1s}, links_ignored: []}
YAML
"$airan" up --config "$work/up.yaml" --data "$work/data" >"$work/airan.log" 2>&1 &
up=$!
pids+=("$up")
until_it "airan is ready" curl -fsS "http://127.0.0.1:$admin/readyz"

# Rows of three dates: one now, the others as late as a node that was away.
python3 - "$ROWS" >"$work/rows.ndjson" <<'PYTHON'
import json
import sys
import time

count = int(sys.argv[1])
now = int(time.time() * 1_000_000)
for row in range(count):
    print(json.dumps({
        "stream": "accelerator", "node": f"pushed-{row % 4}", "device": f"GPU-{row % 16}",
        "ts": now - row % 3 * 86_400_000_000 - row * 1_000, "utilization": row % 100 / 100, "power_watts": 300 + row % 7,
    }))
PYTHON
# push FIRST LAST: those lines, in one request.
push() {
    sed -n "$1,$2p" "$work/rows.ndjson" |
        curl -fsS -H 'content-type: application/x-ndjson' --data-binary @- "http://127.0.0.1:$http/v1/ndjson"
    echo
}
# Values in columns: maps, missing in some rows, and distributions.
python3 - >"$work/nested.ndjson" <<'PYTHON'
import json
import time

now = int(time.time() * 1_000_000)
for row in range(600):
    print(json.dumps({
        "stream": "sample", "node": f"pushed-{row % 4}", "name": "nested", "ts": now - row % 2 * 86_400_000_000 - row * 1_000,
        "attributes": {"le": f"{row % 7}", "ä": "x" * (row % 5)} if row % 3 else None,
        "histogram": {"bounds": [0.1, row / 4], "counts": [row, 1, 2], "sum": row / 3, "count": row + 3} if row % 5 else None,
    }))
PYTHON
curl -fsS -H 'content-type: application/x-ndjson' --data-binary @"$work/nested.ndjson" "http://127.0.0.1:$http/v1/ndjson"
echo
rows_are() { [ "$(query "SELECT count(*) AS n FROM accelerator" | json 'x[0]["n"]')" = "$1" ]; }
# In two commits, so that each date has two files.
push 1 "$((ROWS / 2))"
until_it "half of the rows are in the lake" rows_are "$((ROWS / 2))"
push "$((ROWS / 2 + 1))" "$ROWS"
rows_are_stored() { rows_are "$ROWS"; }
windows_are_stored() { [ "$(query "SELECT count(*) AS n FROM host_load" | json 'x[0]["n"]')" -gt 0 ]; }
until_it "the $ROWS pushed rows are in the lake" rows_are_stored
until_it "windows of this host are in the lake" windows_are_stored

metrics() { curl -fsS "http://127.0.0.1:$admin/metrics"; }

# pyarrow pushes the same body twice, and bodies that are refused: each row is stored once.
"$venv/bin/python" tests/arrow_push.py "http://127.0.0.1:$http" --mistakes
arrow_rows() { query "SELECT count(*) AS n, count(DISTINCT device) AS devices, sum(power_watts) AS watts, min(source) AS source
    FROM accelerator WHERE node = 'arrow-push'" | json '[x[0]["n"], x[0]["devices"], x[0]["watts"], x[0]["source"]]'; }
arrow_rows_are_stored() { [ "$(arrow_rows)" = "[8, 8, 2428.0, 'arrow/ipc']" ]; }
until_it "rows pushed by pyarrow are in the lake" arrow_rows_are_stored
again_is_known() { [ "$(metrics | awk '/^airan_processor_rows_total\{.*outcome="duplicate"/ {n += $NF} END {print n + 0}')" = 8 ]; }
until_it "the second push was known as the first" again_is_known
arrow_rows_are_stored || { echo "FAIL rows pushed by pyarrow: $(arrow_rows)"; exit 1; }

metrics_have() { metrics | grep -q "^$1"; }
until_it "results are on /metrics" metrics_have airan_host_cpu_utilization_ratio
metrics >"$work/metrics.txt"
promtool check metrics <"$work/metrics.txt"
echo "ok   promtool check metrics"
promtool check rules deploy/prometheus/airan.rules.yaml >/dev/null
"$venv/bin/python" tests/rules.py
deploy/grafana/build.py --check
python3 tests/monitoring.py "$work/metrics.txt"

cat >"$work/prometheus.yml" <<YAML
global: {scrape_interval: 1s, scrape_timeout: 1s}
rule_files: ["$PWD/deploy/prometheus/airan.rules.yaml"]
remote_write:
  - url: "http://127.0.0.1:$http/api/v1/write"
    queue_config: {batch_send_deadline: 1s}
scrape_configs:
  - job_name: airan
    static_configs: [{targets: ["127.0.0.1:$admin"]}]
  - job_name: exporter
    static_configs: [{targets: ["127.0.0.1:$target"]}]
YAML
promtool check config "$work/prometheus.yml" >/dev/null
prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/tsdb" \
    --web.listen-address="127.0.0.1:$prom" >"$work/prometheus.log" 2>&1 &
pids+=($!)
# Beside what follows: it takes half a minute, most of which it waits.
"$venv/bin/python" tests/remote_write.py "$target" "http://127.0.0.1:$prom" "http://127.0.0.1:$admin" \
    "$airan" --config "$work/up.yaml" --data "$work/data" >"$work/remote_write.log" 2>&1 &
remote_write=$!
pids+=("$remote_write")
# promql EXPRESSION: its first value, or a failure where it has none.
promql() {
    curl -fsS --get --data-urlencode "query=$1" "http://127.0.0.1:$prom/api/v1/query" |
        json 'x["data"]["result"][0]["value"][1]'
}
promql_is() { [ "$(promql "$1")" = "$2" ]; }
until_it "Prometheus scrapes airan" promql_is 'up{job="airan"}' 1
until_it "Prometheus has this host's load" promql 'airan_host_cpu_utilization_ratio{node="readers"}'
commits_go_on() { promql 'rate(airan_lake_commits_total[10s]) > 0'; }
until_it "Prometheus sees commits go on" commits_go_on
last_error=$(curl -fsS "http://127.0.0.1:$prom/api/v1/targets" | json '[t["lastError"] for t in x["data"]["activeTargets"] if t["labels"]["job"] == "airan"][0]')
[ -z "$last_error" ] || { echo "FAIL Prometheus: $last_error"; exit 1; }
samples=$(grep -vc '^#' "$work/metrics.txt")
scraped=$(promql 'scrape_samples_scraped{job="airan"}')
[ "$scraped" -ge "$((samples * 9 / 10))" ] || { echo "FAIL Prometheus took $scraped of about $samples samples"; exit 1; }
echo "ok   Prometheus took $scraped samples"

# The metrics are the lake's numbers: each value that Prometheus has kept of a shipped metric is the value of a window.
metrics_are_windows() {
    for pair in airan_host_cpu_utilization_ratio:cpu_utilization_ratio airan_host_memory_used_ratio:memory_used_ratio \
        airan_host_load1:load1; do
        curl -fsS --get --data-urlencode "query=${pair%:*}{node=\"readers\"}[5m]" "http://127.0.0.1:$prom/api/v1/query" \
            >"$work/metric.json"
        query "SELECT ${pair#*:} AS value FROM host_load WHERE node = 'readers'" >"$work/windows.json"
        python3 - "$work/metric.json" "$work/windows.json" <<'PYTHON' || return 1
import json
import sys

[series] = json.load(open(sys.argv[1]))["data"]["result"]
shown = {float(value) for _, value in series["values"]}
windows = {row["value"] for row in json.load(open(sys.argv[2]))}
assert len(shown) >= 2 and shown <= windows, (shown, windows)
PYTHON
    done
}
until_it "what Prometheus shows of this host are the values of its windows in the lake" metrics_are_windows

# What Prometheus has sent, it has sent once: its own samples of a series, instant by instant, are the rows in the lake.
sent_is_stored() {
    curl -fsS --get --data-urlencode 'query=up{job="airan"}[5m]' "http://127.0.0.1:$prom/api/v1/query" >"$work/up.json"
    query "SELECT CAST(ts AS BIGINT) AS ts, value FROM sample WHERE name = 'up' AND source = 'remote_write/1' AND attributes['job'] = 'airan'
           ORDER BY ts" >"$work/up_rows.json"
    python3 - "$work/up.json" "$work/up_rows.json" <<'PYTHON'
import json
import sys

[series] = json.load(open(sys.argv[1]))["data"]["result"]
sent = [round(at * 1000) for at, _ in series["values"]]
stored = [row["ts"] // 1000 for row in json.load(open(sys.argv[2]))]
# What was sent after the last commit is not there yet.
sent = [at for at in sent if stored and at <= stored[-1]]
assert len(sent) >= 10 and sent == stored, (sent, stored)
PYTHON
}
until_it "what Prometheus sends by remote write is stored, each sample once" sent_is_stored
wait "$remote_write" || { echo "FAIL a target that stops, over remote write"; exit 1; }
cat "$work/remote_write.log"

python3 tests/sums.py "http://127.0.0.1:$admin" doors agent shards

# Delta logs of a raw table, of one with maps and of windows. Commits that checkpoints stand in for are cleared up after a day, by the age
# of their files: so these are made older.
begun_later() {
    local log=$work/data/lake/$1/_delta_log
    find "$log" -name '*.json' -exec touch -d '2 days ago' {} +
    [ ! -e "$log/00000000000000000000.json" ]
}
for table in host sample host_load; do
    until_it "the Delta log of $table has lost its beginning" begun_later "$table"
done

# The files: with the writer gone, so that all readers see one lake.
kill -TERM "$up"
wait "$up"
echo "ok   airan drained and ended"
"$airan" lake publish --config "$work/up.yaml" --data "$work/data"
"$airan" lake check --config "$work/up.yaml" --data "$work/data"
tables=$("$airan" lake files --config "$work/up.yaml" --data "$work/data" --format json | json '" ".join(t["table"] for t in x)')
counts=""
for table in $tables; do
    counts="$counts${counts:+ UNION ALL }SELECT '$table' AS \"table\", count(*) AS rows FROM $table"
done
counts="$counts ORDER BY 1"
query "$counts" >"$work/counts.json"
"$venv/bin/python" tests/readers.py "$work/data/lake" "$work/counts.json" host sample host_load
# README's queries, as printed there: each shows rows with their times. DuckDB finds its extension where it would have put it.
extension=$(PYTHONPATH=tests "$venv/bin/python" -c 'import readers; print(readers.delta_extension())')
platform=${extension%/*}
version=${platform%/*}
mkdir -p "$work/home/.duckdb/extensions/${version##*/}"
cp -r "$platform" "$work/home/.duckdb/extensions/${version##*/}/"
grep -E '^(python3 -c|target/release/airan query) ' README.md | sed "s|^target/release/airan|'$airan'|" >"$work/readme.txt"
[ "$(wc -l <"$work/readme.txt")" -ge 7 ] || { echo "FAIL README has other queries than it had"; exit 1; }
while read -r command; do
    if ! (cd "$work" && HOME=$work/home PATH=$venv/bin:$PATH bash -c "$command") </dev/null >"$work/readme.log" 2>&1 ||
        ! grep -qE '20[0-9]{2}-[01][0-9]-' "$work/readme.log"; then
        echo "FAIL README: $command"
        exit 1
    fi
done <"$work/readme.txt"
echo "ok   $(wc -l <"$work/readme.txt") queries of README show rows"
values() { "$venv/bin/python" tests/values.py "$work/data/lake" "$airan" --config "$work/up.yaml" --data "$work/data"; }
values

# Compacted: the same rows in fewer files.
files() {
    "$airan" lake files accelerator --config "$work/up.yaml" --data "$work/data" --format json | json 'len(x)'
}
# Of windows the newest revisions: older ones do not outlive compaction.
latest=""
for table in $tables; do
    view=$table
    [ ! -d "pipelines/$table" ] || view=${table}_latest
    latest="$latest${latest:+ UNION ALL }SELECT '$table' AS \"table\", count(*) AS rows FROM $view"
done
latest="$latest ORDER BY 1"
query "$latest" >"$work/latest.json"
before=$(files)
"$airan" lake compact --dry-run --config "$work/up.yaml" --data "$work/data"
"$airan" lake compact --config "$work/up.yaml" --data "$work/data"
after=$(files)
[ "$after" -lt "$before" ] || { echo "FAIL compaction left $after of $before files"; exit 1; }
echo "ok   compaction made $after files of $before"
"$airan" lake check --config "$work/up.yaml" --data "$work/data"
query "$counts" >"$work/counts_compacted.json"
query "$latest" | cmp "$work/latest.json" -
"$venv/bin/python" tests/readers.py "$work/data/lake" "$work/counts_compacted.json"
"$venv/bin/python" tests/sorted.py "$work/data/lake" accelerator "$((ROWS / 4))"

# Erased: a node's rows of past dates are gone, for every reader, and so is what windows were made of them alone.
past=$(date -u -d '12 hours ago' +%Y-%m-%dT%H:%M:%SZ)
gone="node = 'pushed-1' AND ts < '$past'"
left=$(query "SELECT count(*) AS n FROM accelerator WHERE NOT ($gone)" | json 'x[0]["n"]')
"$venv/bin/python" tests/erasure.py "$work/data/lake" "$gone" "$airan" --config "$work/up.yaml" --data "$work/data"
[ "$(query "SELECT count(*) AS n FROM accelerator" | json 'x[0]["n"]')" = "$left" ] || { echo "FAIL other rows went"; exit 1; }
[ "$(query "SELECT count(*) AS n FROM accelerator WHERE $gone" | json 'x[0]["n"]')" = 0 ] || { echo "FAIL rows are left"; exit 1; }
echo "ok   erasure left $left rows"
"$airan" lake publish --config "$work/up.yaml" --data "$work/data"
"$airan" lake check --config "$work/up.yaml" --data "$work/data"
query "$counts" >"$work/counts_erased.json"
"$venv/bin/python" tests/readers.py "$work/data/lake" "$work/counts_erased.json"
values
