#!/usr/bin/env bash
# Sourced by tests of the built binary: `airan` is that of the last release build, built when missing, unless AIRAN names another;
# `cache` the folder for what survives between runs.

cache=${XDG_CACHE_HOME:-$HOME/.cache}/airan
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
airan=${AIRAN:-$CARGO_TARGET_DIR/release/airan}
[ -x "$airan" ] || cargo build --release -p airan

# want_python: Python with the packages of tests/requirements.txt, in the cache folder, as `$venv/bin/python`.
want_python() {
    venv=$cache/venv
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check -r tests/requirements.txt
}

# want_tools PACKAGES TOOL...: ends the test where a tool is missing, with the Debian packages to install.
want_tools() {
    local packages=$1 tool
    shift
    for tool in "$@"; do
        command -v "$tool" >/dev/null || { echo "$tool is missing: apt-get install $packages"; exit 1; }
    done
}
