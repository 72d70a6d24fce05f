#!/usr/bin/env bash
# Fuzzes every decoder: cargo-fuzz with sanitizers, seeded from the samples, each target for some seconds. A finding ends it with an
# error and the bytes that made it.
#
# usage: tests/fuzz.sh SECONDS [TARGET...]     environment: AIRAN_SAMPLES, the folder of other systems' files
#
# Needs a nightly compiler and cargo-fuzz, which are installed where they are missing; where they cannot be had, it fails and says
# what is. The corpus grows from run to run in ${XDG_CACHE_HOME:-$HOME/.cache}/airan/fuzz.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:?usage: tests/fuzz.sh SECONDS [TARGET...]}
shift
cache=${XDG_CACHE_HOME:-$HOME/.cache}/airan
samples=${AIRAN_SAMPLES:-$PWD/../shared/samples}
work=$cache/fuzz
mkdir -p "$work"

missing() {
    echo "FAIL nothing is fuzzed: $*"
    [ ! -f "$work/install.log" ] || tail -n 20 "$work/install.log"
    exit 1
}
rm -f "$work/install.log"
command -v rustup >/dev/null || missing "there is no rustup, which brings the nightly compiler (https://rustup.rs)"
if ! rustup toolchain list | grep -q '^nightly'; then
    timeout 600 rustup toolchain install nightly --profile minimal >"$work/install.log" 2>&1 ||
        missing "no nightly compiler: rustup toolchain install nightly --profile minimal says"
fi
tools=$cache/fuzz-tools
if [ ! -x "$tools/bin/cargo-fuzz" ]; then
    CARGO_TARGET_DIR=$cache/fuzz-tools-target cargo install cargo-fuzz --locked --root "$tools" >"$work/install.log" 2>&1 ||
        missing "no cargo-fuzz: cargo install cargo-fuzz --locked says"
fi
PATH=$tools/bin:$PATH
venv=$cache/venv
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install -q --disable-pip-version-check -r tests/requirements.txt
"$venv/bin/python" tests/fuzz_seeds.py "$samples" "$work/corpus"

export CARGO_TARGET_DIR=$cache/fuzz-target
fuzz=crates/airan-decode/fuzz
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cd "$fuzz/fuzz_targets" && printf '%s\n' *.rs | sed 's/\.rs$//')
# One allocation at most, and all of them: what decoders may keep (airan-decode, "Memory"), and what the sanitizer takes beside it.
limits=(-malloc_limit_mb=256 -rss_limit_mb=1536 -timeout=10 -max_len=65536)
for target in "${targets[@]}"; do
    mkdir -p "$work/corpus/$target" "$work/found/$target"
    log=$work/$target.log
    if ! (cd "$fuzz" && cargo +nightly fuzz run --fuzz-dir . "$target" "$work/corpus/$target" -- \
        "-max_total_time=$seconds" "-artifact_prefix=$work/found/$target/" "${limits[@]}" >"$log" 2>&1); then
        tail -n 40 "$log"
        echo "FAIL $target: the bytes are in $work/found/$target; the whole log is $log"
        exit 1
    fi
    echo "ok   $target: $(grep -o 'Done [0-9]* runs in [0-9]* second' "$log" | tail -n 1)s, peak $(grep -o 'rss: [0-9]*Mb' "$log" | tail -n 1)"
done
