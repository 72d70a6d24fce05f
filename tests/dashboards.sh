#!/usr/bin/env bash
# The dashboards of deploy/grafana over the demo site: a real Prometheus scrapes `airan up --demo`, with the shipped rules, and is asked
# what each panel asks (dashboards.py). Windows of a minute have to close before the last panels have data. Then what it holds of
# each pipeline is compared with the lake (lake_metrics.py), the labels that rules and panels name with those there are (labels.py), and
# the sums of doors, agent and shards are (sums.py). Demos begun before each trouble of the bad day show it (bad_day.py).
#
# Needs prometheus (Debian's package), curl, and python3 with venv.
#
# usage: tests/dashboards.sh     environment: AIRAN, the binary (default: that of the last release build, built when missing)
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=tests/binary.sh
. tests/binary.sh
want_tools "prometheus curl python3-venv" prometheus curl python3
want_python

# shellcheck source=tests/work.sh
. tests/work.sh

read -r http grpc admin prom < <(free_ports 4)

cat >"$work/up.yaml" <<YAML
admin: {listen: "127.0.0.1:$admin"}
gateway: {http: "127.0.0.1:$http", grpc: "127.0.0.1:$grpc"}
processor: {commit: {interval: 2s}}
YAML
cat >"$work/prometheus.yml" <<YAML
global: {scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 2s}
rule_files: ["$PWD/deploy/prometheus/airan.rules.yaml"]
scrape_configs:
  - job_name: airan
    static_configs: [{targets: ["127.0.0.1:$admin"]}]
YAML
"$airan" up --demo --config "$work/up.yaml" --data "$work/data" >"$work/airan.log" 2>&1 &
pids+=($!)
prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/tsdb" \
    --web.listen-address="127.0.0.1:$prom" >"$work/prometheus.log" 2>&1 &
pids+=($!)
for ready in "http://127.0.0.1:$admin/readyz" "http://127.0.0.1:$prom/-/ready"; do
    timeout 120 bash -c "until curl -fsS $ready >/dev/null 2>&1; do sleep 0.2; done" ||
        { echo "FAIL not within 120s: $ready"; exit 1; }
done
# Beside what follows, which mostly waits for windows too.
python3 tests/bad_day.py "$airan" >"$work/bad_day.log" 2>&1 &
bad_day=$!
pids+=("$bad_day")
python3 tests/dashboards.py "http://127.0.0.1:$prom" 420
curl -fsS "http://127.0.0.1:$admin/metrics" >"$work/metrics.txt"
"$venv/bin/python" tests/labels.py "$work/metrics.txt"
"$venv/bin/python" tests/lake_metrics.py "$airan" "$work/up.yaml" "$work/data" "http://127.0.0.1:$prom"
python3 tests/sums.py "http://127.0.0.1:$admin" doors agent shards
wait "$bad_day" || { echo "FAIL the demo's bad day"; exit 1; }
cat "$work/bad_day.log"
