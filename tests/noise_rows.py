#!/usr/bin/env python3
"""Pushes rows of accelerators whose values nothing makes smaller, all of one past hour, as Arrow: a random double in each gauge of the
catalog, so that rows take the bytes of their values in Parquet too.

usage: noise_rows.py URL MIB     gateway's HTTP door; MiB of Parquet that the rows make, about
"""
import os
import sys
import time

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from arrow_push import ipc, push

NODES, DEVICES = 20, 10
DAY, HOUR = 86_400_000_000, 3_600_000_000
# Of a double between 1 and 2, the bits that are random, and those that are not.
FRACTION, ONE = 0x000F_FFFF_FFFF_FFFF, 0x3FF0_0000_0000_0000
# Bytes of a body; the gateway takes 16 MiB.
BODY = 15 << 20
DEADLINE = 120


def gauges():
    """Those columns of the catalog's accelerators that hold a double."""
    with open("config/catalog/accelerator.yaml", encoding="utf-8") as file:
        (stream,) = yaml.safe_load(file)["streams"]
    return [column["name"] for column in stream["columns"] if column["kind"] == "gauge" and "type" not in column]


def noise(count):
    """Random doubles."""
    drawn = pa.Array.from_buffers(pa.int64(), count, [None, pa.py_buffer(os.urandom(8 * count))])
    bits = pc.bit_wise_or(pc.bit_wise_and(drawn, pa.scalar(FRACTION)), pa.scalar(ONE))
    return bits.view(pa.float64())


def rows(hour, first, count, of, names):
    """All devices at one instant, then all at the next, through the hour."""
    numbers = range(first, first + count)
    instant = NODES * DEVICES
    step = HOUR // (of // instant + 1)
    labels = {
        "ts": pa.array([hour + number // instant * step for number in numbers], pa.timestamp("us", tz="UTC")),
        "node": [f"node-{number % NODES}" for number in numbers],
        "device": [f"GPU-{number // NODES % DEVICES}" for number in numbers],
    }
    return pa.table(labels | {name: noise(count) for name in names})


def main(url, mib):
    names = gauges()
    # 52 random bits of 64; labels and what the gateway adds hardly count beside them.
    wanted = (int(mib) << 20) * 8 // (52 * len(names))
    at_once = BODY // (8 * len(names) + 64)
    hour = time.time_ns() // 1000 // DAY * DAY - 2 * DAY + 12 * HOUR
    for first in range(0, wanted, at_once):
        body = ipc(rows(hour, first, min(at_once, wanted - first), wanted, names))
        end = time.monotonic() + DEADLINE
        while True:
            status, answer = push(url, body, "accelerator")
            # The bus is behind: the same body again, later.
            if status not in (429, 503) or time.monotonic() > end:
                break
            time.sleep(0.2)
        assert status == 200 and not answer["refused"], (status, answer)
    print(wanted)


if __name__ == "__main__":
    main(*sys.argv[1:])
