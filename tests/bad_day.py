#!/usr/bin/env python3
"""The demo's bad day in the windows of its lake: four demos side by side, each begun just before one of its troubles.

usage: bad_day.py AIRAN

Scenario: days of 20 minutes that begin just before a cell is full, a device is cut anew, a device is too hot and a clock loses its reference.
Guarantees: the site has two servers, four GPUs and six cells; what README says of each trouble is in the windows of what it strikes, while it
lasts, and in no window of what stands beside it.
"""
import contextlib
import subprocess
import sys
import time

from running import Running, free_ports, get, until

CELLS = [f"demo-cell-{number}" for number in range(1, 7)]
GPUS = [f"demo-gpu-{number}" for number in range(1, 5)]
SERVERS = ["demo-server-1", "demo-server-2"]
# Three windows of a minute, their lateness and a busy machine.
DEADLINE = 400


class Demo(Running):
    def __init__(self, airan, begin, ports):
        super().__init__(airan)
        http, grpc, self.admin = ports
        (self.folder / "up.yaml").write_text(
            f'admin: {{listen: "127.0.0.1:{self.admin}"}}\n'
            f'gateway: {{http: "127.0.0.1:{http}", grpc: "127.0.0.1:{grpc}"}}\n'
            "processor: {commit: {interval: 2s}}\n"
            f"agent: {{demo: {{day: 20m, begin: {begin}s}}}}\n"
        )
        self.process = self.start("airan", [self.airan, "up", "--demo", *self.settings])

    def windows(self, table, columns, where="true"):
        """Rows of the newest revisions of a table's windows, oldest first."""
        return self.query(f"SELECT window_start, {columns} FROM {table}_latest WHERE {where} ORDER BY window_start")


def beside(rows, struck, column, bound):
    """Rows of what is struck with a value above a bound, of which there must be some; nothing else has one."""
    found = [row for row in rows if (row[column] or 0) > bound]
    assert found, f"no {column} above {bound}: {rows[-3:]}"
    others = [row for row in found if not struck(row)]
    assert not others, f"{column} above {bound}: {others[:3]}"
    return found


def site(demo):
    of = lambda table, column: sorted({row[column] for row in demo.windows(table, column) if row[column]})
    assert of("cell_capacity", "cell") == CELLS, of("cell_capacity", "cell")
    assert of("host_load", "node") == SERVERS, of("host_load", "node")
    assert of("accelerator_capacity", "device") == GPUS, of("accelerator_capacity", "device")
    return True


def saturation(demo):
    cells = demo.windows("cell_capacity", "cell, dl_prb_utilization_ratio, dl_saturated_ratio")
    is_full = lambda row: row["cell"] == "demo-cell-3"
    beside(cells, is_full, "dl_saturated_ratio", 0)
    beside(cells, is_full, "dl_prb_utilization_ratio", 0.85)
    # Late slots over those that the objective allows.
    return beside(demo.windows("slot_budget", "cell, misses_used_ratio"), is_full, "misses_used_ratio", 1)


def recut(demo):
    devices = demo.windows("mig_capacity", "device, instances, slices_allocated")
    counts = {device: [row["instances"] for row in devices if row["device"] == device] for device in GPUS}
    assert {device for device, found in counts.items() if found} == {"demo-gpu-1", "demo-gpu-3", "demo-gpu-4"}, counts
    for device in ("demo-gpu-1", "demo-gpu-3"):
        assert set(counts[device]) == {3}, counts
    # Two instances in the windows before, three in those after; both layouts are in the window of the cut, and all have all its slices.
    found = counts["demo-gpu-4"]
    assert found[0] == 2 and found[-2:] == [3, 3] and found == sorted(found), found
    assert all(abs(row["slices_allocated"] - 7) < 0.01 for row in devices), devices
    return devices


def throttling(demo):
    devices = demo.windows("accelerator_capacity", "device, temperature_max_celsius", "slice IS NULL")
    is_hot = lambda row: row["device"] == "demo-gpu-2"
    beside(devices, is_hot, "temperature_max_celsius", 85)
    models = demo.windows("inference_latency", "model, ttft_p50_seconds", "ttft_p50_seconds IS NOT NULL")
    return beside(models, lambda row: row["model"] == "demo-70b", "ttft_p50_seconds", 0.3)


def holdover(demo):
    clocks = demo.windows("timing_health", "node, process, not_locked_ratio, offset_max_seconds")
    is_lost = lambda row: (row["node"], row["process"]) == ("demo-server-2", "ptp4l")
    beside(clocks, is_lost, "not_locked_ratio", 0)
    beside(clocks, is_lost, "offset_max_seconds", 1.1e-6)
    cells = demo.windows("fronthaul_deadlines", "node, cell, late_ratio, budget_used_ratio", "cell IS NOT NULL")
    late = beside(cells, lambda row: row["node"] == "demo-server-2", "budget_used_ratio", 1)
    assert {row["cell"] for row in late} == set(CELLS[3:]), late
    return late


# (what, the second of the day at which the demo begins, how it is seen)
TROUBLES = [
    ("a cell is full, and its slots are late", 120 - 10, saturation),
    # A window ends before it.
    ("a device is cut anew", 300 - 65, recut),
    ("a GPU is too hot, and its model answers late", 360 - 10, throttling),
    ("a clock drifts in holdover, and fronthaul packets come late", 600 - 10, holdover),
]


def main():
    with contextlib.ExitStack() as stack:
        ports = free_ports(3 * len(TROUBLES))
        demos = [
            (what, stack.enter_context(Demo(sys.argv[1], begin, ports[3 * number:3 * number + 3])), seen)
            for number, (what, begin, seen) in enumerate(TROUBLES)
        ]
        for _, demo, _ in demos:
            until("a demo is ready", lambda: get(f"http://127.0.0.1:{demo.admin}/readyz") is not None, demo.process)
        end = time.monotonic() + DEADLINE
        left = [("the site is whole", demos[0][1], site), *demos]
        problems = {}
        while left:
            for one in list(left):
                what, demo, seen = one
                try:
                    found = seen(demo)
                except (AssertionError, IndexError, subprocess.CalledProcessError) as error:
                    problems[what] = error
                    continue
                print(f"ok   {what}: {found if found is True else found[-1]}", flush=True)
                left.remove(one)
            if left and time.monotonic() > end:
                sys.exit("\n".join(f"FAIL not within {DEADLINE}s: {what}: {problems[what]}" for what, _, _ in left))
            time.sleep(3)
        for _, demo, _ in demos:
            demo.end(demo.process, "the demo")
            demo.check_lake()


main()
