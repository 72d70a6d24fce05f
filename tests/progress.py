#!/usr/bin/env python3
"""Long commands on a terminal and without one: `airan` on a pseudo-terminal, over a lake whose store is slow.

usage: progress.py AIRAN S3 SLOW-S3     (the binary; an S3 server with a bucket `airan`; the same behind a slow proxy)

Scenario: `airan up` makes a lake of many small files. Then each command that may take long runs on a pseudo-terminal, and again with its
output in pipes.
Guarantees: on the terminal it says what it does and draws over the line while it does it, and the line is gone at the end; in pipes
nothing of that is written, to neither stdout nor stderr, however long it takes. Both end with success and print the same result, where
the command changes nothing.
"""
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
import urllib.request

from running import Running, free_ports, until

DAY = 86_400
BATCHES = 3
# A terminal's control sequences.
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LONGEST = 180


class Site(Running):
    # --data would put the lake on the disk.
    settings = ["--config", "up.yaml"]

    def __init__(self, airan, s3, slow):
        super().__init__(airan)
        self.http, grpc, self.admin = free_ports(3)
        for name, endpoint in [("up", s3), ("slow", slow)]:
            options = {
                "aws_endpoint": endpoint, "aws_region": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test",
                "aws_allow_http": "true",
            }
            config = {
                "node": "progress",
                "bus": {"partitions": 2},
                "admin": {"listen": f"127.0.0.1:{self.admin}"},
                "gateway": {"http": f"127.0.0.1:{self.http}", "grpc": f"127.0.0.1:{grpc}", "tick": "1s"},
                "processor": {"commit": {"interval": "1s"}},
                "lake": {"path": f"s3://airan/progress-{os.getpid()}", "options": options, "compaction": {"on": False}},
                "agent": {"host": {"enabled": False}, "links": {"enabled": False}, "accelerators": {"source": "off"}},
            }
            (self.folder / f"{name}.yaml").write_text(json.dumps(config))

    def push(self, batch):
        """Rows of yesterday, whose hours are over: small files that are worth a merge."""
        start = int(time.time()) - DAY
        rows = [
            {"stream": "host", "node": f"n{node}", "ts": (start + batch * 60 + second) * 1_000_000, "load1": second / 8}
            for node in range(4)
            for second in range(60)
        ]
        body = "".join(json.dumps(row) + "\n" for row in rows).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}/v1/ndjson", body, {"content-type": "application/x-ndjson"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200, answer.status
        return len(rows)

    def command(self, arguments):
        return [self.airan, *arguments, "--config", "slow.yaml"]

    def on_terminal(self, arguments):
        """Everything a command writes to a terminal of 100 columns, and how long it took."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        begin = time.monotonic()
        process = subprocess.Popen(
            self.command(arguments), cwd=self.folder, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"}
        )
        os.close(theirs)
        self.processes.append(process)
        written = b""
        while True:
            assert time.monotonic() - begin < LONGEST, f"{arguments} takes longer than {LONGEST} s"
            if not select.select([ours], [], [], 1)[0]:
                continue
            try:
                part = os.read(ours, 65536)
            except OSError:  # nobody holds the other end any more
                break
            if not part:
                break
            written += part
        os.close(ours)
        text = written.decode()
        assert process.wait(timeout=20) == 0, (arguments, text)
        return text, time.monotonic() - begin

    def in_pipes(self, arguments):
        begin = time.monotonic()
        done = subprocess.run(self.command(arguments), cwd=self.folder, capture_output=True, text=True, timeout=LONGEST)
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout, done.stderr, time.monotonic() - begin


def screen(text):
    """What is left to read of what was written: each line as it was last drawn."""
    lines = text.replace("\r\n", "\n").split("\n")
    return [CONTROL.sub("", line.rsplit("\r", 1)[-1]).rstrip() for line in lines]


def look(site, says, arguments, changes):
    """One command both ways; `changes`: the second run finds nothing left to do."""
    text, took = site.on_terminal(arguments)
    name = " ".join(arguments[:2])
    assert took > 2.5, f"{name} took {took:.1f} s: too short to show anything, the store is not slow enough"
    drawn = [says in CONTROL.sub("", part) for part in re.split(r"[\r\n]", text)]
    assert sum(drawn) > 1, f"{name}: `{says}` was drawn {sum(drawn)} times in {took:.1f} s: {text!r}"
    assert CONTROL.search(text), f"{name}: nothing is drawn over: {text!r}"
    left = screen(text)
    assert not any(says in line for line in left), f"{name}: the line stays: {left}"
    out, err, piped = site.in_pipes(arguments)
    assert says not in out + err and not CONTROL.search(out + err), f"{name}: {out!r} {err!r}"
    if not changes:
        assert piped > 2.5, f"{name} took {piped:.1f} s in pipes: it shows nothing"
        assert [line for line in left if line] == [line.rstrip() for line in out.splitlines() if line.strip()], (left, out)
    print(f"ok   {name}: `{says}` for {took:.0f} s on a terminal, nothing in pipes", flush=True)


def main():
    with Site(*sys.argv[1:]) as site:
        up = site.up()
        pushed = 0
        for batch in range(BATCHES):
            pushed += site.push(batch)
            until(
                f"{pushed} rows are in the lake",
                lambda: site.query("SELECT count(*) AS n FROM host")[0]["n"] == pushed,
            )
        site.end(up, "airan")
        since, until_then = (time.strftime("%Y-%m-%d", time.gmtime(time.time() + days * DAY)) for days in (-2, 1))
        for says, arguments, changes in [
            ("reading the lake", ["query", "SELECT node, count(*) AS n FROM host GROUP BY node ORDER BY node"], False),
            ("reading the lake", ["lake", "files"], False),
            ("checking the lake", ["lake", "check"], False),
            ("publishing", ["lake", "publish"], True),
            ("bytes merged", ["lake", "compact"], True),
            ("applying the retention", ["lake", "expire"], True),
            ("computing windows", ["backfill", "host_load", "--from", since, "--to", until_then, "--offline"], True),
            ("taking rows out", ["lake", "erase", "--where", "node = 'n1'", "--offline"], True),
        ]:
            look(site, says, arguments, changes)
        site.check_lake()


main()
