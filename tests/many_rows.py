#!/usr/bin/env python3
"""Pushes many rows of containers of two past dates as Arrow, a second between two rows of one container.

usage: many_rows.py URL ROWS [late]     gateway's HTTP door; rows of each date; late: half a second after those
"""
import sys
import time

import pyarrow as pa

from arrow_push import ipc, push

NODES, CONTAINERS = 6, 6
DAY = 86_400_000_000
# Of about 28 bytes each; the gateway takes 16 MiB.
ROWS_AT_ONCE = 360_000
SCHEMA = pa.schema([
    ("ts", pa.timestamp("us", tz="UTC")),
    ("node", pa.string()),
    ("container", pa.string()),
    ("memory_used_bytes", pa.float64()),
])


def rows(begin, first, count):
    """All containers at one instant, then all at the next."""
    numbers = range(first, first + count)
    return pa.table({
        "ts": [begin + number // (NODES * CONTAINERS) * 1_000_000 for number in numbers],
        "node": [f"node-{number % NODES}" for number in numbers],
        "container": [f"c-{number // NODES % CONTAINERS}" for number in numbers],
        "memory_used_bytes": [float(number) for number in numbers],
    }, schema=SCHEMA)


def main(url, wanted, is_late):
    today = time.time_ns() // 1000 // DAY * DAY
    offset = 500_000 if is_late else 0
    for days in (3, 2):
        for first in range(0, wanted, ROWS_AT_ONCE):
            body = ipc(rows(today - days * DAY + offset, first, min(ROWS_AT_ONCE, wanted - first)))
            status, answer = push(url, body, "container")
            assert status == 200 and not answer["refused"], (status, answer)
    print(f"ok   pushed {2 * wanted} rows")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["late"])
