#!/usr/bin/env bash
# The page at `/` of the admin port in a real browser: Chromium, driven by Playwright, looks at a real `airan up` that takes rows of
# two sites, with a gap, a late batch and a hostile name (page.mjs), and at an agent, which has no lake.
#
# Needs chromium (Debian's package), node with npm, python3 and curl; playwright-core goes into the cache folder.
#
# usage: tests/page.sh [FOLDER]   pictures of the page go to FOLDER, which is kept
# environment: AIRAN, the binary (default: that of the last release build, built when missing)
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=tests/binary.sh
. tests/binary.sh
want_tools "chromium nodejs npm python3 curl" chromium node npm python3 curl
version=1.65.1
node=$cache/node
if [ "$(cat "$node/playwright-core.version" 2>/dev/null)" != "$version" ]; then
    mkdir -p "$node"
    npm install --prefix "$node" --no-audit --no-fund --ignore-scripts --no-save --loglevel error "playwright-core@$version" >/dev/null
    echo "$version" >"$node/playwright-core.version"
fi

# shellcheck source=tests/work.sh
. tests/work.sh

read -r http grpc admin other < <(free_ports 4)

cat >"$work/inventory.yaml" <<'YAML'
regions:
  - name: north
    jurisdiction: local
    sites:
      - {name: north-001, nodes: [edge-a]}
      - {name: "<img src=x onerror=\"document.title='owned'\">", nodes: [edge-b]}
      - {name: home, nodes: [page]}
YAML
cat >"$work/up.yaml" <<YAML
node: page
bus: {partitions: 2}
admin: {listen: "127.0.0.1:$admin"}
inventory: {file: "$work/inventory.yaml"}
gateway: {http: "127.0.0.1:$http", grpc: "127.0.0.1:$grpc", tick: 1s}
processor: {commit: {interval: 1s}}
agent: {host: {interval: 1s}, links: {interval: 1s}}
YAML
cat >"$work/agent.yaml" <<YAML
node: page-agent
admin: {listen: "127.0.0.1:$other"}
agent: {uplink: {url: "http://127.0.0.1:$http"}}
YAML
"$airan" up --config "$work/up.yaml" --data "$work/data" >"$work/airan.log" 2>&1 &
pids+=($!)
up=$!
"$airan" agent --config "$work/agent.yaml" >"$work/agent.log" 2>&1 &
pids+=($!)

AIRAN=$airan WORK=$work UP=$up PLAYWRIGHT=$node/node_modules/playwright-core \
    PAGE="http://127.0.0.1:$admin" AGENT_PAGE="http://127.0.0.1:$other" DOORS="http://127.0.0.1:$http" \
    PICTURES=${1:-} timeout 600 node tests/page.mjs
