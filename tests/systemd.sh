#!/usr/bin/env bash
# The systemd unit, as systemd's own checker reads it: no unknown key or value, what it starts is there, and its exposure stays under a
# bound. Then that the check can fail: a key that does not exist, and hardening taken away. Last, that its SystemCallFilter lets through
# what airan calls, as strace sees it.
#
# Needs systemd-analyze (Debian's package `systemd`; no systemd has to run), strace and python3.
#
# usage: tests/systemd.sh        environment: AIRAN, the binary (default: that of the last release build, built when missing)
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=tests/binary.sh
. tests/binary.sh
want_tools systemd systemd-analyze

# Exposure in tenths, of systemd's scale from 0 (safe) to 10. What remains are the network, /proc and /sys, and device nodes.
EXPOSURE=20

# shellcheck source=tests/work.sh
. tests/work.sh
export SYSTEMD_PAGER=

# as_unit SED-SCRIPT: the shipped unit, changed, with the binary that is here in place of the one that will be installed.
as_unit() { sed -e "s|/usr/local/bin/airan|$airan|" -e "$1" deploy/systemd/airan.service >"$work/airan.service"; }
# verified: whether the checker has nothing to say; it ends with 0 where it only warns.
verified() {
    systemd-analyze verify --man=no "$work/airan.service" >"$work/verify.log" 2>&1 && [ ! -s "$work/verify.log" ]
}
within() {
    systemd-analyze security --offline=true --threshold="$EXPOSURE" --no-pager "$work/airan.service" >"$work/security.log" 2>&1
}

printf '[Service]\nExecStart=/bin/true\n' >"$work/probe.service"
if ! systemd-analyze verify --man=no "$work/probe.service" >"$work/probe.log" 2>&1; then
    echo "NOT CHECKED: systemd-analyze does not work here, even on a unit of one line; the unit airan.service is unchecked:"
    cat "$work/probe.log"
    exit 0
fi

as_unit ''
verified || { echo "FAIL systemd-analyze verify"; exit 1; }
echo "ok   systemd-analyze verify"
within || { echo "FAIL the exposure is over $EXPOSURE tenths"; exit 1; }
echo "ok  $(tail -n 1 "$work/security.log" | sed 's/[^ -~]//g')"

as_unit 's/^ProtectSystem=/ProtectSystm=/'
if verified; then echo "FAIL a key that does not exist is not noticed"; exit 1; fi
as_unit 's|^ExecStart=.*|ExecStart=/nowhere/airan|'
if verified; then echo "FAIL a program that is not there is not noticed"; exit 1; fi
as_unit '/^\(CapabilityBoundingSet\|SystemCallFilter\)=/d'
if within; then echo "FAIL hardening taken away is not noticed"; exit 1; fi
echo "ok   a key that does not exist, a program that is not there and hardening taken away are noticed"

# The unit's SystemCallFilter ends the process at a call outside it: what `airan up --demo` really calls, until its windows are
# in the lake, is within.
want_tools strace strace
# calls NAME...: the calls of these sets (@name) and calls, one a line.
calls() {
    local name
    for name in "$@"; do
        case $name in
        @*) read -r -d '' -a inner < <(systemd-analyze syscall-filter "$name" | sed -n '/^ \+#/d; s/^ \+//p') || true
            [ "${#inner[@]}" -gt 0 ] && calls "${inner[@]}" ;;
        *) echo "$name" ;;
        esac
    done
}
read -r -d '' -a allowed < <(sed -n 's/^SystemCallFilter=\([^~]\)/\1/p' deploy/systemd/airan.service) || true
read -r -d '' -a denied < <(sed -n 's/^SystemCallFilter=~//p' deploy/systemd/airan.service) || true
comm -23 <(calls "${allowed[@]}" | sort -u) <(calls "${denied[@]}" | sort -u) >"$work/may.txt"
if ! strace -f -o "$work/trace.true" true 2>"$work/strace.log"; then
    echo "NOT CHECKED: strace does not work here; the unit's SystemCallFilter is unchecked:"
    cat "$work/strace.log"
    exit 0
fi
read -r http grpc admin < <(python3 -c '
import socket
sockets = [socket.socket() for _ in range(3)]
for s in sockets:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))')
cat >"$work/up.yaml" <<YAML
admin: {listen: "127.0.0.1:$admin"}
gateway: {http: "127.0.0.1:$http", grpc: "127.0.0.1:$grpc"}
processor: {commit: {interval: 2s}}
YAML
strace -f -qq --seccomp-bpf -e 'trace=!read,write,futex,epoll_wait,recvfrom,sendto' -o "$work/calls.txt" \
    "$airan" up --demo --config "$work/up.yaml" --data "$work/data" >"$work/airan.log" 2>&1 &
tracer=$!
# strace itself takes no signal but 9, and its child would outlive it. Its first children are trials of its own, gone at once.
for _ in $(seq 100); do
    child=$(pgrep -x -P "$tracer" "$(basename "$airan" | cut -c1-15)" || true)
    [ -z "$child" ] || break
    sleep 0.1
done
[ -n "$child" ] || { echo "FAIL strace started nothing"; exit 1; }
pids+=("$child" "$tracer")
windows() {
    "$airan" query --config "$work/up.yaml" --data "$work/data" --format json 'SELECT count(*) AS n FROM host_load' 2>/dev/null |
        python3 -c 'import json, sys; sys.exit(json.load(sys.stdin)[0]["n"] == 0)'
}
end=$((SECONDS + 240))
until windows; do
    [ "$SECONDS" -lt "$end" ] || { echo "FAIL no windows within 240s"; exit 1; }
    sleep 1
done
kill -TERM "$child"
wait "$tracer"
grep -o '^[0-9]* *[a-z_0-9]*(' "$work/calls.txt" | sed 's/^[0-9]* *//; s/($//' | sort -u >"$work/did.txt"
[ "$(wc -l <"$work/did.txt")" -ge 40 ] || { echo "FAIL strace saw too few calls:"; cat "$work/did.txt"; exit 1; }
outside=$(comm -23 "$work/did.txt" "$work/may.txt" | tr '\n' ' ')
[ -z "$outside" ] || { echo "FAIL the unit's SystemCallFilter would end airan at: $outside"; exit 1; }
echo "ok   each of the $(wc -l <"$work/did.txt") system calls of airan is within the unit's SystemCallFilter"
