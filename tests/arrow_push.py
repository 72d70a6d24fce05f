#!/usr/bin/env python3
"""Pushes rows to a gateway from pyarrow: `POST /v1/arrow`, an Arrow IPC stream of the rows of one stream.

usage: arrow_push.py URL [--mistakes]        URL of the gateway's HTTP door, for example http://127.0.0.1:4318

A column has the name and type that the catalog gives it. A catalogued column of another type refuses the body with a reason, and so
do bytes that are no Arrow, or a stream that nobody knows. An answer of 200 means that the bus has the rows. The same body
sent again by the same sender is known and stored once, so whoever gets no answer, 429 or 503 sends it again, unchanged.

It pushes 8 rows twice; with --mistakes, as the CI runs it (readers.sh), also four bodies that the gateway refuses and counts. Exits
1 where an answer is not the one stated.
"""

import json
import sys
import time
import urllib.error
import urllib.request

import pyarrow as pa

# Devices pushed.
DEVICES = 8
# One row per device and instant; units are the catalog's: ratios of 0 to 1, watts.
SCHEMA = pa.schema([
    ("ts", pa.timestamp("us", tz="UTC")),
    ("node", pa.string()),
    ("device", pa.string()),
    ("utilization", pa.float64()),
    ("power_watts", pa.float64()),
])


def accelerators(devices):
    """Rows of one instant."""
    now = time.time_ns() // 1000
    return pa.table({
        "ts": [now] * devices,
        "node": ["arrow-push"] * devices,
        "device": [f"GPU-{n}" for n in range(devices)],
        "utilization": [n / devices for n in range(devices)],
        "power_watts": [300.0 + n for n in range(devices)],
    }, schema=SCHEMA)


def ipc(table):
    """The table as the bytes of one Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def push(url, body, stream="accelerator"):
    """Sends one body: the status, and what the gateway says in JSON."""
    headers = {"content-type": "application/vnd.apache.arrow.stream", "airan-sender": "arrow-push"}
    if stream is not None:
        headers["airan-stream"] = stream
    request = urllib.request.Request(f"{url.rstrip('/')}/v1/arrow", body, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def mistakes(table, body):
    """Bodies that are refused: what it is, what is sent, the status, the reason."""
    # Integers where the catalog has doubles.
    place = table.schema.get_field_index("power_watts")
    wrong = table.set_column(place, "power_watts", table["power_watts"].cast(pa.int64()))
    return [
        ("a column of another type", (ipc(wrong), "accelerator"), 400, "wrong_type"),
        ("half of a body", (body[: len(body) // 2], "accelerator"), 400, "malformed"),
        ("a stream that nobody knows", (body, "no_such"), 400, "unknown_stream"),
        ("no stream", (body, None), 400, "unknown_stream"),
    ]


def main(url, with_mistakes):
    """Pushes, pushes again, and makes mistakes where it is told to."""
    table = accelerators(DEVICES)
    body = ipc(table)
    wanted = [
        ("rows", (body, "accelerator"), 200, None),
        ("the same body again", (body, "accelerator"), 200, None),
    ]
    if with_mistakes:
        wanted += mistakes(table, body)
    failed = 0
    for what, (sent, stream), status, reason in wanted:
        found, answer = push(url, sent, stream)
        good = found == status and (answer.get("rows") == DEVICES if reason is None else answer.get("reason") == reason)
        print(f"{'ok  ' if good else 'FAIL'} {what}: {found} {json.dumps(answer)}")
        failed += not good
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:] == ["--mistakes"]))
