#!/usr/bin/env python3
"""The sums that a running airan keeps, as its own /metrics tell them: no row is without an end.

- doors, each: received = acknowledged + refused + unknown;
- agent: collected = acknowledged + queued + dropped;
- shards, each: appended = stored + duplicate + rejected + pending.

Rows under way make a sum differ for a moment, so each is asked for until it holds, with a deadline.

usage: sums.py ADMIN-URL [doors] [agent] [shards]     those named must have seen rows; all three are checked
"""
import re
import sys

from running import get, until

SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.M)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def samples(text):
    """(name, labels, value) of each line of Prometheus text."""
    return [(name, dict(LABEL.findall(labels)), float(value)) for name, labels, value in SAMPLE.findall(text)]


def sides(text):
    """By what has a sum, as ("doors", "ndjson"): the left side, and the right one."""
    ends = {}

    def add(of, side, value):
        ends.setdefault(of, [0, 0])[side] += value

    for name, labels, value in samples(text):
        match name:
            case "airan_gateway_rows_total":
                add(("doors", labels["door"]), int(labels["outcome"] != "received"), value)
            case "airan_agent_collected_rows_total":
                add(("agent", ""), 0, value)
            case "airan_agent_acknowledged_rows_total" | "airan_agent_queued_rows" | "airan_agent_dropped_rows_total":
                add(("agent", ""), 1, value)
            case "airan_processor_rows_total":
                add(("shards", labels["partition"]), int(labels["outcome"] != "appended"), value)
            case "airan_processor_pending_rows":
                add(("shards", labels["partition"]), 1, value)
    return ends


def check_sums(url, *with_rows):
    """Waits until each sum of the airan whose admin port is at `url` holds; the parts named must have seen rows."""
    held = {}

    def hold():
        ends = sides(get(f"{url}/metrics"))
        assert ends, f"no sums on {url}/metrics"
        held.update({of: left for of, (left, right) in ends.items() if left == right})
        # Each has held at one moment; what came later must hold too.
        open_ends = {of: ends[of] for of in ends.keys() - held.keys()}
        assert not open_ends, f"left and right sides differ: {open_ends}"
        rows = {part: sum(left for (of, _), (left, _) in ends.items() if of == part) for part in with_rows}
        assert all(rows.values()), f"no rows: {rows}"
        return True

    until(f"the sums of {', '.join(with_rows)} hold", hold)


if __name__ == "__main__":
    check_sums(sys.argv[1], *sys.argv[2:])
