"""The golden inputs of the shipped pipelines, and their answers from a second implementation.

usage: golden.py            checks that pipelines/*/{input,expected}.ndjson are what this script says
       golden.py --write    writes them

The answers do not come from airan: this is a plain reading of the rules, row by row, with no DataFusion in it. Rules: a row
is known by (node, stream, batch, seq); counters and histograms rise as `rise` says; the watermark of a stream is the least
newest time over its live nodes, less the lateness; a window closes when the watermark of all its streams passes its end; a
row of a closed window is late and changes nothing. Where windows overlap, a row is in each that holds it and has not closed.
"""

import json
import os
import sys
from datetime import datetime, timedelta, timezone

T0 = datetime(2026, 1, 1, tzinfo=timezone.utc)
SECOND = 1_000_000
LATENESS = 10 * SECOND
PERIODS = {"accelerator": 30, "inference": 15, "timing": 30, "link": 15, "host": 15, "cell": 1, "fronthaul": 1}
ENTITY = {
    "accelerator": ["device", "slice", "core"],
    "inference": ["server", "model", "engine"],
    "timing": ["process", "interface", "reference"],
    "link": ["interface"],
    "host": [],
    "cell": ["gnb", "cell"],
    "fronthaul": ["cell", "ru", "nic"],
}
COUNTERS = {
    "accelerator": ["energy_joules", "xid_errors"],
    "inference": ["generation_tokens", "prompt_tokens"],
    "timing": ["process_restarts"],
    "link": ["rx_bytes", "tx_bytes", "rx_errors", "tx_errors", "rx_drops", "tx_drops"],
    "host": ["cpu_user_seconds", "cpu_nice_seconds", "cpu_system_seconds", "cpu_idle_seconds", "cpu_iowait_seconds",
             "cpu_irq_seconds", "cpu_softirq_seconds", "cpu_steal_seconds", "disk_read_bytes", "disk_written_bytes"],
    "cell": ["dl_bytes", "ul_bytes", "dl_slots", "ul_slots", "late_slots", "energy_joules"],
    "fronthaul": ["rx_early_packets", "rx_on_time_packets", "rx_late_packets", "missed_ul_symbols", "missed_prach_occasions",
                  "late_dl_slots", "late_ul_slot_requests"],
}
HISTOGRAMS = {"inference": ["time_to_first_token_seconds", "time_per_output_token_seconds", "inter_token_latency_seconds",
                            "queue_time_seconds"],
              "cell": ["slot_latency_seconds"]}


# --- input -------------------------------------------------------------------------------------------------------------


def stamp(seconds):
    """RFC 3339 of `seconds` after T0."""
    return (T0 + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0").rstrip(".") + "Z"


def micros(text):
    """Microseconds since 1970 of an RFC 3339 time."""
    text = text[:-1]
    form = "%Y-%m-%dT%H:%M:%S.%f" if "." in text else "%Y-%m-%dT%H:%M:%S"
    since = datetime.strptime(text, form).replace(tzinfo=timezone.utc) - datetime(1970, 1, 1, tzinfo=timezone.utc)
    return (since.days * 86400 + since.seconds) * SECOND + since.microseconds


SITES = {"edge-m1": ("madrid-01", "eu-south"), "edge-m2": ("madrid-01", "eu-south"), "edge-o1": ("oslo-02", "eu-north")}


def row(stream, second, node, **values):
    """One input row; the site follows from the node."""
    site, region = SITES[node]
    return {"stream": stream, "ts": stamp(second), "site": site, "region": region, "node": node, **values}


def histogram(bounds, counts, total):
    """A histogram value: counts per bucket, the last one beyond all bounds."""
    return {"bounds": bounds, "counts": counts, "sum": total, "count": sum(counts)}


TTFT = [0.1, 0.25, 0.5, 1.0]
TPOT = [0.025, 0.05, 0.1]
QUEUE = [0.5, 1.0]


def inference_rows(last):
    """Two servers; the second restarts at 60 s and its counters begin anew."""
    rows = []
    for second in range(0, last + 1, 15):
        n = second // 15
        rows.append(row("inference", second, "edge-m1", server="vllm-0", model="llama-3-8b", engine="0",
                        time_to_first_token_seconds=histogram(TTFT, [4 * n, 8 * n, 6 * n, n, n], 6.5 * n),
                        time_per_output_token_seconds=histogram(TPOT, [10 * n, 5 * n, 2 * n, n], 0.9 * n),
                        queue_time_seconds=histogram(QUEUE, [18 * n, 2 * n, 0], 2.0 * n),
                        generation_tokens=1500 * n, prompt_tokens=600 * n,
                        requests_running=4 + n % 3, requests_waiting=n % 2, kv_cache_usage_ratio=0.25 + 0.05 * (n % 4)))
        m = n if second < 60 else n - 4
        rows.append(row("inference", second, "edge-o1", server="vllm-1", model="qwen-2", engine="0",
                        time_to_first_token_seconds=histogram(TTFT, [0, 5 * m, 5 * m, 0, 0], 3.0 * m),
                        inter_token_latency_seconds=histogram(TPOT, [100 * m, 50 * m, 0, 0], 3.5 * m),
                        generation_tokens=3000 * m, prompt_tokens=100 * m, requests_running=1, requests_waiting=None))
    return rows


def accelerator_rows(last, step):
    """Two whole devices, one of them with a MIG slice, and one core that must be left out. Both have XID errors: two within one report,
    and one after the driver was loaded again, which counts from 0."""
    rows = []
    for second in range(0, last + 1, step):
        n = second // step
        rows.append(row("accelerator", second, "edge-m1", device="GPU-a", utilization=0.25 + 0.125 * (n % 4), sm_active=0.5,
                        tensor_active=0.25, memory_used_bytes=20e9, memory_free_bytes=58e9, memory_reserved_bytes=2e9,
                        power_watts=300.0 + n % 5, energy_joules=1e6 + 310.0 * second, temperature_celsius=60 + n % 3,
                        xid_errors=4 if second < 12 else 6, xid_last_code=31 if second < 12 else 79))
        rows.append(row("accelerator", second, "edge-m1", device="GPU-a", slice="7", engine_active=0.5 + 0.125 * (n % 2),
                        memory_used_bytes=4e9, memory_total_bytes=5e9))
        rows.append(row("accelerator", second, "edge-m1", device="NPU-b", core="3", utilization=1.0))
        # The driver of the second site is loaded again at 20 s: its energy begins anew.
        energy = 5e5 + 200.0 * second if second < 20 else 200.0 * (second - 20) + 100.0
        rows.append(row("accelerator", second, "edge-o1", device="GPU-c", utilization=0.75, power_watts=None,
                        memory_used_bytes=70e9, memory_total_bytes=80e9, energy_joules=energy, xid_errors=3 if second < 20 else 1))
        if second == step:
            rows.append({**rows[-1], "batch": "00000000000000000000000000000001", "seq": 7})
            rows.append(dict(rows[-1]))  # the same row again: a retry
    return rows


def second_server_rows(last, step):
    """Another server of the first site: a device that bears the name of one of the first server and tells less of itself, and
    one that tells its memory and the last XID error's code alone, the greater one within the window before."""
    rows = []
    for second in range(0, last + 1, step):
        rows.append(row("accelerator", second, "edge-m2", device="GPU-a", utilization=0.875, energy_joules=150.0 * second))
        rows.append(row("accelerator", second, "edge-m2", device="GPU-d", memory_used_bytes=10e9, memory_total_bytes=40e9,
                        xid_last_code=94 if second == 12 else 13 if second > 12 else 0))
    return rows


def timing_rows(last):
    """One clock that stays locked, one that loses its lock for a while, one that reports no offset."""
    rows = []
    for second in range(0, last + 1, 15):
        clock = {"process": "ptp4l", "interface": "ens2f0", "reference": "master"}
        rows.append(row("timing", second, "edge-m1", **clock, offset_seconds=-2.5e-8, path_delay_seconds=4e-7,
                        clock_state="locked", clock_class=6, process_restarts=3 if second < 30 else 4))
        lost = 30 <= second < 60
        rows.append(row("timing", second, "edge-o1", **clock, offset_seconds=1.25e-6 if lost else 5e-8,
                        clock_state="holdover" if lost else "locked", clock_class=7 if lost else 6))
        rows.append(row("timing", second, "edge-o1", process="phc2sys", interface="ens2f0", reference="phc",
                        clock_state="freerun"))
    return rows


def link_rows(last):
    """One line of 25 Gbit/s, one of unknown speed whose counters fall once."""
    rows = []
    for second in range(0, last + 1, 5):
        n = second // 5
        rows.append(row("link", second, "edge-m1", interface="ens2f0", rx_bytes=10_000_000_000 * n, tx_bytes=2_500_000_000 * n,
                        rx_errors=n // 2, rx_drops=0, tx_drops=3 * n, speed_bytes_per_second=3_125_000_000.0, up=1))
        m = n if second < 15 else n - 3
        rows.append(row("link", second, "edge-o1", interface="eth0", rx_bytes=1000 * m, tx_bytes=None if n == 1 else 400 * m,
                        up=0 if n == 2 else 1))
    return rows


def host_rows(last):
    """One host with counters; one that reports its utilisation only, and in two rows an instant."""
    rows = []
    for second in range(0, last + 1, 5):
        n = second // 5
        rows.append(row("host", second, "edge-m1", cpu_user_seconds=6.0 * n, cpu_system_seconds=2.0 * n, cpu_idle_seconds=11.0 * n,
                        cpu_iowait_seconds=1.0 * n, load1=1.5 + n % 2, cpus=4, memory_total_bytes=64e9,
                        memory_available_bytes=48e9, disk_read_bytes=4096 * n, disk_written_bytes=8192 * n * n,
                        fullest_filesystem_ratio=0.5, power_watts=180.0))
        rows.append(row("host", second, "edge-o1", cpu_utilization=0.25 + 0.25 * (n % 2), load1=0.5))
        rows.append(row("host", second, "edge-o1", memory_total_bytes=32e9, memory_available_bytes=24e9))
    return rows


def cell_rows(last):
    """A cell that reports shares and counts bytes, its columns split over two rows an instant and its DU started again at 70 s;
    one that reports PRBs and throughput; one that reports users alone. Two gNBs name their cells alike."""
    rows = []
    for second in range(0, last + 1, 10):
        n = second // 10
        m = n if second < 70 else n - 7
        one = {"gnb": "101", "cell": "0"}
        # 0.84375 is below the threshold, 0.859375 above it; 0.85 itself stands for the uplink.
        rows.append(row("cell", second, "edge-m1", **one, dl_prb_utilization=[0.5, 0.84375, 0.859375][n % 3],
                        ul_prb_utilization=0.85 if n == 8 else 0.25, connected_ues=20 + n))
        rows.append(row("cell", second, "edge-m1", **one, dl_bytes=500_000_000 * m, ul_bytes=125_000_000 * m,
                        energy_joules=250.0 * 10 * m))
        rows.append(row("cell", second, "edge-m1", gnb="102", cell="0", connected_ues=None if n % 2 else 4))
        rows.append(row("cell", second, "edge-o1", cell="2", dl_prbs_used=64.0 if n % 2 else 128.0, dl_prbs_available=256.0,
                        ul_prbs_used=32.0, ul_prbs_available=0.0 if second < 60 else 256.0, dl_bytes_per_second=4e6 + 1e6 * (n % 2),
                        dl_bytes=1000 * n, connected_ues=n))
    return rows


def fronthaul_rows(last):
    """A cell that keeps its objective but for one burst and whose counters begin anew at 100 s, an RU whose early packets nobody
    counts, a card without any packet counter, and an RU that falls silent: it counts, and nothing comes."""
    rows = []
    for second in range(0, last + 1, 10):
        n = second // 10
        m, burst = (n, 1 if n >= 7 else 0) if second < 100 else (n - 10, 0)
        rows.append(row("fronthaul", second, "edge-m1", cell="0", rx_early_packets=m, rx_on_time_packets=40_000 * m - 500 * burst,
                        rx_late_packets=2 * m + 500 * burst, rx_latest_seconds=2.5e-5 if n == 7 else 1e-6,
                        missed_ul_symbols=14 * burst, missed_prach_occasions=burst))
        rows.append(row("fronthaul", second, "edge-m1", cell="0", late_dl_slots=m // 4, late_ul_slot_requests=3 * burst))
        rows.append(row("fronthaul", second, "edge-o1", ru="ru-1", rx_on_time_packets=30_000 * n, rx_late_packets=n // 6))
        rows.append(row("fronthaul", second, "edge-o1", ru="ru-2", rx_early_packets=5, rx_on_time_packets=900, rx_late_packets=1))
        rows.append(row("fronthaul", second, "edge-o1", nic="ens2f0", late_dl_slots=7))
    return rows


SLOT = [5e-5 * n for n in range(1, 11)]


def slot_rows(last):
    """A cell of 30 kHz whose histogram ends at the slot's length, with a burst of late slots and a DU started again at 200 s; one of
    15 kHz that counts its late slots and has no histogram; one of 30 kHz that tells what happened since its report before, in bins that
    end below the slot's length; one that tells no numerology; one that tells no latency at all."""
    rows = []
    for second in range(0, last + 1, 10):
        n = second // 10
        m, burst = (n, 30 if n >= 9 else 0) if second < 200 else (n - 20, 0)
        counts = [0, 6000 * m, 9000 * m, 3000 * m, 1500 * m, 400 * m, 90 * m, 8 * m, m, m, burst]
        rows.append(row("cell", second, "edge-m1", gnb="101", cell="0", numerology=1, slot_latency_max_seconds=4.5e-4,
                        slot_latency_seconds=histogram(SLOT, counts, 1.5e-4 * sum(counts))))
        rows.append(row("cell", second, "edge-m1", gnb="101", cell="1", numerology=0, late_slots=n // 3, dl_slots=8000 * n))
        rows.append(row("cell", second, "edge-m1", gnb="101", cell="1", ul_slots=2000 * n))
        rows.append(row("cell", second, "edge-o1", cell="2", numerology=1, slot_latency_seconds_increase=histogram(
            SLOT[:9], [0, 1662, 317, 15, 0, 0, 0, 0, 5, 1], 0.25)))
        rows.append(row("cell", second, "edge-o1", cell="3", slot_latency_seconds=histogram(SLOT[:2], [n, n, n], 2e-4 * n)))
        rows.append(row("cell", second, "edge-o1", cell="4", connected_ues=3))
    return rows


def sliced_rows(last, step):
    """A device cut into 3 + 2 slices for radio and AI, cut anew at 90 s into 3 + 4; an A30 of which one slice tells no workload and names
    its profile only at times; two whole devices, one for each workload; one that is cut into slices nobody knows the size of."""
    rows = []
    for second in range(0, last + 1, step):
        n = second // step
        mig = {"device": "GPU-m"}
        rows.append(row("accelerator", second, "edge-o1", **mig, model="H100", engine_active=0.25 + 0.125 * (n % 2), power_watts=300.0,
                        energy_joules=300.0 * second))
        rows.append(row("accelerator", second, "edge-o1", **mig, slice="1", slice_profile="3g.40gb", workload="ran",
                        engine_active=0.5 + 0.125 * (n % 3), memory_used_bytes=20e9, memory_total_bytes=40e9))
        if second < 90:
            rows.append(row("accelerator", second, "edge-o1", **mig, slice="2", slice_profile="2g.20gb", workload="ai",
                            engine_active=0.75, memory_used_bytes=10e9, memory_free_bytes=10e9))
        else:
            rows.append(row("accelerator", second, "edge-o1", **mig, slice="2", slice_profile="4g.40gb", workload="ai",
                            engine_active=0.25, memory_used_bytes=30e9))
        a30 = {"device": "GPU-n", "model": "NVIDIA A30"}
        rows.append(row("accelerator", second, "edge-m1", **a30, engine_active=0.5, energy_joules=100.0 * second))
        rows.append(row("accelerator", second, "edge-m1", **a30, slice="3", slice_profile="2g.12gb" if n % 2 else None,
                        engine_active=0.5 + 0.25 * (n % 2)))
        rows.append(row("accelerator", second, "edge-m1", **a30, slice="5", slice_profile="1g.6gb", workload="ai", engine_active=0.25))
        rows.append(row("accelerator", second, "edge-o1", device="GPU-w", workload="ran", sm_active=0.75, energy_joules=200.0 * second))
        rows.append(row("accelerator", second, "edge-o1", device="GPU-x", workload="ai", sm_active=1.0, energy_joules=400.0 * second))
    return rows


def by_time(rows):
    """Rows in order of their times; one instant of one node and stream keeps its order."""
    return sorted(rows, key=lambda r: (r["ts"], r["stream"]))


def late(stream, second, node, appended, **values):
    """A row whose window has closed when it comes."""
    return {**row(stream, second, node, **values), "append_time": stamp(appended)}


def arriving(rows):
    """Rows in the order in which the bus has them."""
    return sorted(rows, key=lambda r: r.get("append_time", stamp((micros(r["ts"]) - micros(stamp(0))) / SECOND + 1)))


END = [{"tick": stamp(240)}, {"tick": stamp(400)}]
LATER = [{"tick": stamp(600)}, {"tick": stamp(1000)}]
INPUTS = {
    "accelerator_capacity": by_time(accelerator_rows(40, 2) + second_server_rows(40, 4))
    + [late("accelerator", 5, "edge-m1", 42, device="GPU-a", utilization=1.0, power_watts=9999.0)] + END,
    "inference_latency": by_time(inference_rows(135)) + END,
    "timing_health": by_time(timing_rows(135)) + END,
    "link_use": by_time(link_rows(40)) + [late("link", 3, "edge-m1", 42, interface="ens2f0", rx_bytes=1, speed_bytes_per_second=1.0)]
    + END,
    "host_load": by_time(host_rows(40)) + END,
    "cell_capacity": by_time(cell_rows(150))
    + [late("cell", 5, "edge-m1", 152, gnb="101", cell="0", dl_prb_utilization=1.0, connected_ues=999)] + END,
    "fronthaul_deadlines": by_time(fronthaul_rows(150))
    + [late("fronthaul", 5, "edge-m1", 152, cell="0", rx_late_packets=9_000_000, rx_latest_seconds=1.0)] + END,
    "mig_capacity": by_time(accelerator_rows(150, 15) + sliced_rows(150, 15)) + END,
    # A row that is late for the windows that end by 120 s and in time for the others that hold it; one that is late for all.
    "slot_budget": arriving(by_time(slot_rows(400)) + [
        late("cell", 55, "edge-m1", 152, gnb="101", cell="0", slot_latency_max_seconds=9e-3),
        late("cell", 5, "edge-m1", 395, gnb="101", cell="0", slot_latency_max_seconds=9e-1)]) + LATER,
    # The third minute has no inference at Oslo: its row stands with nulls.
    "site_capacity": by_time(
        accelerator_rows(165, 15) + second_server_rows(165, 15) + [r for r in inference_rows(165) if r["node"] != "edge-o1" or r["ts"] < stamp(120)]
        + timing_rows(165) + sliced_rows(165, 15) + cell_rows(165) + fronthaul_rows(165)) + END,
}


# --- the rules ---------------------------------------------------------------------------------------------------------


def rise(state, key, ts, value):
    """The rise of a counter and its span in seconds, or (None, None) on first sight and out of order."""
    before = state.get(key)
    if before is not None and ts <= before[0]:
        return None, None
    state[key] = (ts, value)
    if before is None:
        return None, None
    seconds = (ts - before[0]) / SECOND
    return (value - before[1] if value >= before[1] else value), seconds


def rise_histogram(state, key, ts, value):
    """The same for a histogram, bucket by bucket."""
    before = state.get(key)
    if before is not None and ts <= before[0]:
        return None, None
    state[key] = (ts, value)
    if before is None:
        return None, None
    old = before[1]
    seconds = (ts - before[0]) / SECOND
    if old["bounds"] != value["bounds"] or any(n < o for n, o in zip(value["counts"], old["counts"])):
        return value, seconds
    return {"bounds": value["bounds"], "counts": [n - o for n, o in zip(value["counts"], old["counts"])],
            "sum": value["sum"] - old["sum"], "count": value["count"] - old["count"]}, seconds


def with_rises(state, line):
    """The row with its `_increase` and `_increase_seconds`."""
    stream, ts = line["stream"], micros(line["ts"])
    out = dict(line)
    entity = tuple(line.get(name) for name in ENTITY[stream])
    for names, how in ((COUNTERS.get(stream, []), rise), (HISTOGRAMS.get(stream, []), rise_histogram)):
        for name in names:
            if line.get(name) is not None:
                key = (stream, line["node"], entity, name)
                out[f"{name}_increase"], out[f"{name}_increase_seconds"] = how(state, key, ts, line[name])
    return out


class Time:
    """Newest times by (stream, node), and the watermarks that follow from them."""

    def __init__(self):
        self.append = None
        self.newest = {}
        self.marks = {}

    def see(self, append, line):
        self.append = append
        if line is not None:
            key, ts = (line["stream"], line["node"]), micros(line["ts"])
            newest, _ = self.newest.get(key, (None, None))
            if ts < append - LATENESS - 120 * SECOND:
                return  # backfill holds and moves nothing
            self.newest[key] = (ts if newest is None else max(newest, ts), append)

    def watermark(self, stream):
        live_for = max(60, 3 * PERIODS[stream]) * SECOND
        live = [ts for (s, _), (ts, seen) in self.newest.items() if s == stream and self.append - seen <= live_for]
        mark = min(live) - LATENESS if live else self.append - LATENESS - 60 * SECOND
        self.marks[stream] = max(mark, self.marks.get(stream, mark))
        return self.marks[stream]


def windows(lines, streams, width, slide):
    """Closed windows in order: (start in microseconds, rows)."""
    width, slide = width * SECOND, slide * SECOND
    state, seen, seqs, time = {}, set(), {}, Time()
    open_windows, closed, through, append = {}, [], None, None
    for line in lines:
        given = line.get("tick") or line.get("append_time")
        at = micros(given) if given else micros(line["ts"]) + SECOND
        append = at if append is None else max(append, at)
        if "tick" not in line:
            key = (line["node"], line["stream"])
            running = seqs.get(key, 0)
            if "batch" not in line:
                seqs[key] = running + 1
            name = key + (line.get("batch"), line.get("seq", running))
            if name in seen:
                time.see(append, None)
            else:
                seen.add(name)
                risen = with_rises(state, line)
                last = micros(line["ts"]) // slide * slide
                for start in range(last - width + slide, last + slide, slide):
                    if through is None or start + width > through:
                        open_windows.setdefault(start, []).append(risen)
                time.see(append, line)
        else:
            time.see(append, None)
        mark = min(time.watermark(s) for s in streams)
        through = mark if through is None else max(through, mark)
        for start in sorted(s for s in open_windows if s + width <= through):
            closed.append((start, open_windows.pop(start)))
    return closed


# --- aggregates --------------------------------------------------------------------------------------------------------


def values(rows, name):
    return [r[name] for r in rows if r.get(name) is not None]


def avg(rows, name):
    v = values(rows, name)
    return sum(v) / len(v) if v else None


def total(rows, name):
    v = values(rows, name)
    return sum(v) if v else None


def most(rows, name):
    return max(values(rows, name), default=None)


def first(*options):
    return next((o for o in options if o is not None), None)


def over(a, b):
    return None if a is None or b in (None, 0) else a / b


def merged(rows, name):
    v = values(rows, name)
    if not v:
        return None
    assert all(h["bounds"] == v[0]["bounds"] for h in v)
    return {"bounds": v[0]["bounds"], "counts": [sum(c) for c in zip(*(h["counts"] for h in v))], "count": sum(h["count"] for h in v),
            "sum": sum(h["sum"] for h in v)}


def quantile(q, h):
    """As Prometheus: linear inside the bucket, from 0 in the first, the highest bound beyond all of them."""
    if h is None or sum(h["counts"]) == 0:
        return None
    rank, below = q * sum(h["counts"]), 0
    for index, count in enumerate(h["counts"]):
        if below + count >= rank and count > 0:
            if index == len(h["bounds"]):
                return h["bounds"][-1]
            low = h["bounds"][index - 1] if index else 0.0
            return low + (h["bounds"][index] - low) * (rank - below) / count
        below += count
    raise AssertionError("the rank lies in a bucket")


def percentile(v):
    """Percentiles are approximate: exact where all values are one, else known to lie between the least and the greatest."""
    if len(set(v)) > 1:
        return {"from": min(v), "to": max(v)}
    return v[0] if v else None


def groups(rows, keys):
    found = {}
    for r in rows:
        found.setdefault(tuple(r.get(k) for k in keys), []).append(r)
    order = sorted(found, key=lambda key: tuple((k is None, k or "") for k in key))
    return [(dict(zip(keys, key)), found[key]) for key in order]


def memory_total(rows):
    summed = [avg(rows, "memory_used_bytes"), avg(rows, "memory_free_bytes")]
    added = None if None in summed else sum(summed) + (avg(rows, "memory_reserved_bytes") or 0.0)
    return first(most(rows, "memory_total_bytes"), added)


def headroom(rows):
    busy = first(most(rows, "sm_active"), most(rows, "engine_active"), most(rows, "utilization"))
    return None if busy is None else max(0.0, 1.0 - busy - 0.10)


def accelerator_capacity(rows):
    kept = [r for r in rows if r.get("core") is None]
    for key, g in groups(kept, ["region", "site", "node", "device", "slice"]):
        yield {**key, "utilization_avg_ratio": first(avg(g, "utilization"), avg(g, "engine_active")),
               "utilization_max_ratio": first(most(g, "utilization"), most(g, "engine_active")),
               "sm_active_avg_ratio": avg(g, "sm_active"), "tensor_active_avg_ratio": avg(g, "tensor_active"),
               "memory_used_bytes": avg(g, "memory_used_bytes"), "memory_total_bytes": memory_total(g),
               "memory_used_ratio": over(avg(g, "memory_used_bytes"), memory_total(g)), "power_watts": avg(g, "power_watts"),
               "energy_joules": total(g, "energy_joules_increase"), "temperature_max_celsius": most(g, "temperature_celsius"),
               "xid_errors": total(g, "xid_errors_increase"), "xid_last_code": most(g, "xid_last_code"),
               "headroom_ratio": headroom(g)}


def host_load(rows):
    modes = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"]
    for key, g in groups(rows, ["region", "site", "node"]):
        spent = {m: total(g, f"cpu_{m}_seconds_increase") for m in modes}
        counted = None
        if None not in (spent["user"], spent["system"], spent["idle"]):
            every = sum(v or 0.0 for v in spent.values())
            counted = 1.0 - (spent["idle"] + (spent["iowait"] or 0.0)) / every
        left = over(avg(g, "memory_available_bytes"), most(g, "memory_total_bytes"))
        yield {**key, "cpu_utilization_ratio": first(counted, avg(g, "cpu_utilization")), "load1": avg(g, "load1"),
               "cpus": most(g, "cpus"), "memory_used_ratio": None if left is None else 1.0 - left,
               "memory_total_bytes": most(g, "memory_total_bytes"),
               "disk_read_bytes_per_second": over(total(g, "disk_read_bytes_increase"), total(g, "disk_read_bytes_increase_seconds")),
               "disk_written_bytes_per_second":
                   over(total(g, "disk_written_bytes_increase"), total(g, "disk_written_bytes_increase_seconds")),
               "fullest_filesystem_ratio": most(g, "fullest_filesystem_ratio"), "power_watts": avg(g, "power_watts")}


def link_use(rows):
    for key, g in groups(rows, ["region", "site", "node", "interface"]):
        receive = over(total(g, "rx_bytes_increase"), total(g, "rx_bytes_increase_seconds"))
        transmit = over(total(g, "tx_bytes_increase"), total(g, "tx_bytes_increase_seconds"))
        busier = max((r for r in (receive, transmit) if r is not None), default=None)
        yield {**key, "receive_bytes_per_second": receive, "transmit_bytes_per_second": transmit,
               "utilization_ratio": over(busier, most(g, "speed_bytes_per_second")),
               "receive_bytes": total(g, "rx_bytes_increase"), "transmit_bytes": total(g, "tx_bytes_increase"),
               "errors": (total(g, "rx_errors_increase") or 0.0) + (total(g, "tx_errors_increase") or 0.0),
               "drops": (total(g, "rx_drops_increase") or 0.0) + (total(g, "tx_drops_increase") or 0.0),
               "up": min(values(g, "up"), default=None)}


def share_at_least(rows, name, threshold):
    v = values(rows, name)
    return sum(x >= threshold for x in v) / len(v) if v else None


def cell_capacity(rows):
    for key, g in groups(rows, ["region", "site", "node", "gnb", "cell"]):
        out = dict(key)
        for way in ("dl", "ul"):
            out[f"{way}_prb_utilization_ratio"] = first(
                avg(g, f"{way}_prb_utilization"), over(avg(g, f"{way}_prbs_used"), avg(g, f"{way}_prbs_available")))
        for way in ("dl", "ul"):
            out[f"{way}_saturated_ratio"] = share_at_least(g, f"{way}_prb_utilization", 0.85)
        for way in ("dl", "ul"):
            out[f"{way}_bytes_per_second"] = first(
                avg(g, f"{way}_bytes_per_second"),
                over(total(g, f"{way}_bytes_increase"), total(g, f"{way}_bytes_increase_seconds")))
        yield {**out, "connected_ues_avg": avg(g, "connected_ues"), "connected_ues_max": most(g, "connected_ues")}


def fronthaul_deadlines(rows):
    for key, g in groups(rows, ["region", "site", "node", "cell", "ru", "nic"]):
        early, on_time, late_ones = (total(g, f"rx_{name}_packets_increase") for name in ("early", "on_time", "late"))
        known = None not in (on_time, late_ones)
        received = (early or 0.0) + on_time + late_ones if known else None
        misses = (early or 0.0) + late_ones if known else None
        allowed = (1.0 - 0.9998) * received if known else None
        yield {**key, "received_packets": received, "early_packets": early, "late_packets": late_ones,
               "late_ratio": over(late_ones, received), "budget_used_ratio": over(misses, allowed),
               "latest_packet_seconds": most(g, "rx_latest_seconds"), "missed_ul_symbols": total(g, "missed_ul_symbols_increase"),
               "missed_prach_occasions": total(g, "missed_prach_occasions_increase"),
               "late_dl_slots": total(g, "late_dl_slots_increase"),
               "late_ul_slot_requests": total(g, "late_ul_slot_requests_increase")}


def inference_latency(rows):
    for key, g in groups(rows, ["region", "site", "node", "server", "model", "engine"]):
        out = dict(key)
        ttft = merged(g, "time_to_first_token_seconds_increase")
        tpot = merged(g, "time_per_output_token_seconds_increase")
        itl = merged(g, "inter_token_latency_seconds_increase")
        queue = merged(g, "queue_time_seconds_increase")
        for q, name in ((0.50, "p50"), (0.95, "p95"), (0.99, "p99")):
            out[f"ttft_{name}_seconds"] = quantile(q, ttft)
            out[f"tpot_{name}_seconds"] = first(quantile(q, tpot), quantile(q, itl))
            out[f"queue_{name}_seconds"] = quantile(q, queue)
        out["first_tokens"] = ttft and ttft["count"]
        out["generation_tokens"] = total(g, "generation_tokens_increase")
        for name in ("generation_tokens", "prompt_tokens"):
            out[f"{name}_per_second"] = over(total(g, f"{name}_increase"), total(g, f"{name}_increase_seconds"))
        out["requests_running"] = avg(g, "requests_running")
        out["requests_waiting_max"] = most(g, "requests_waiting")
        out["kv_cache_usage_max_ratio"] = most(g, "kv_cache_usage_ratio")
        yield out


def not_locked(rows):
    states = values(rows, "clock_state")
    return sum(s != "locked" for s in states) / len(states) if states else None


def timing_health(rows):
    for key, g in groups(rows, ["region", "site", "node", "process", "interface", "reference"]):
        offsets = [abs(v) for v in values(g, "offset_seconds")]
        one = percentile(offsets)
        yield {**key, "offset_p50_seconds": one, "offset_p99_seconds": one, "offset_p999_seconds": one,
               "offset_max_seconds": max(offsets, default=None), "path_delay_max_seconds": most(g, "path_delay_seconds"),
               "not_locked_ratio": not_locked(g),
               "not_locked_seconds": None if not_locked(g) is None else 60.0 * not_locked(g),
               "clock_class_max": most(g, "clock_class"), "process_restarts": total(g, "process_restarts_increase")}


def mean_total(rows):
    parts = [avg(rows, "memory_used_bytes"), avg(rows, "memory_free_bytes")]
    added = None if None in parts else sum(parts) + (avg(rows, "memory_reserved_bytes") or 0.0)
    return first(avg(rows, "memory_total_bytes"), added)


def site_capacity(rows):
    for key, g in groups(rows, ["region", "site"]):
        a = [r for r in g if r["stream"] == "accelerator" and r.get("slice") is None and r.get("core") is None]
        i = [r for r in g if r["stream"] == "inference"]
        c = [r for r in g if r["stream"] == "timing"]
        devices = [d for _, d in groups(a, ["node", "device"])]
        used = [avg(d, "utilization") if avg(d, "utilization") is not None else avg(d, "engine_active") for d in devices]
        used = [u for u in used if u is not None]
        spare = [h for h in map(headroom, devices) if h is not None]
        memory = [(avg(d, "memory_used_bytes"), mean_total(d)) for d in devices]
        memory = [(one, whole) for one, whole in memory if one is not None and whole is not None]
        energy, tokens = total(a, "energy_joules_increase"), total(i, "generation_tokens_increase")
        shares = []
        for _, d in groups([r for r in g if r["stream"] == "accelerator" and r.get("core") is None], ["node", "device"]):
            whole, cut = [r for r in d if r.get("slice") is None], [r for r in d if r.get("slice") is not None]
            if whole:
                shares.append(radio_share(whole, cut))
        spared = [max(0.0, 1.0 - busy - guard) for busy, guard, _, _ in shares if busy is not None]
        ran, ai = summed(s[2] for s in shares), summed(s[3] for s in shares)
        yield {**key, "accelerators": len(devices) if a else None,
               "accelerator_utilization_avg_ratio": sum(used) / len(used) if used else None,
               "accelerator_headroom_ratio": min(spare, default=None),
               "accelerator_memory_used_ratio": over(sum(m[0] for m in memory), sum(m[1] for m in memory)) if memory else None,
               "accelerator_energy_joules": energy,
               "ttft_p99_seconds": quantile(0.99, merged(i, "time_to_first_token_seconds_increase")), "generation_tokens": tokens,
               "requests_waiting_max": most(i, "requests_waiting"), "kv_cache_usage_max_ratio": most(i, "kv_cache_usage_ratio"),
               "joules_per_token": over(energy, tokens),
               "clock_offset_max_seconds": max((abs(v) for v in values(c, "offset_seconds")), default=None),
               "clock_not_locked_ratio": not_locked(c),
               "ran_accelerator_utilization_max_ratio": max((s[0] for s in shares if s[0] is not None), default=None),
               "sellable_accelerator_headroom_ratio": sum(spared) / len(spared) if spared else None,
               "sellable_accelerators": sum(spared) if spared else None,
               "ran_energy_by_slice_activity_joules": ran, "ai_energy_by_slice_activity_joules": ai,
               "ai_joules_per_token_by_slice_activity": over(ai, tokens), **site_radio(g, ran)}


def slot_budget(rows):
    for key, g in groups(rows, ["region", "site", "node", "gnb", "cell"]):
        h, counted = merged(g, "slot_latency_seconds_increase"), total(g, "late_slots_increase")
        if h is None and counted is None:
            continue
        mu = most(g, "numerology")
        slot = None if mu is None else 1e-3 / 2**mu
        ways = [total(g, f"{way}_slots_increase") for way in ("dl", "ul")]
        slots = h["count"] if h else None if None in ways else sum(ways)
        # Beyond the last bound nobody knows: all of the last bucket is late. Elsewhere the slot's length is a bound.
        above = None
        if h and slot is not None:
            ends = h["bounds"] + [float("inf")]
            above = sum(c for c, end in zip(h["counts"], ends) if end > slot * (1 + 1e-12))
        misses = first(counted, above)
        allowed = None if slots is None else (1.0 - 0.9998) * slots
        used = over(misses, allowed)
        mean, p99 = over(h["sum"], h["count"]) if h else None, quantile(0.99, h)
        yield {**key, "slot_seconds": slot, "slots": slots, "latency_avg_seconds": mean, "latency_p99_seconds": p99,
               "latency_max_seconds": most(g, "slot_latency_max_seconds"), "budget_used_avg_ratio": over(mean, slot),
               "budget_used_p99_ratio": over(p99, slot), "late_slots": misses, "misses_used_ratio": used,
               "misses_left_ratio": None if used is None else max(0.0, 1.0 - used)}


def size_of(profile):
    """The slices of a MIG profile."""
    return int(profile[profile.index("g.") - 1]) if profile else None


def slices_of(model):
    return 4 if "A30" in (model or "") else 7


def of_slices(g):
    """Reports of a device's slices with what the layout says of each: (slice, size, workload, engine activity)."""
    out = []
    for one, part in groups(g, ["slice"]):
        for _, same in groups(part, ["slice_profile"]):
            size = size_of(first(same[0].get("slice_profile"), most(part, "slice_profile")))
            work = first(most(same, "workload"), most(part, "workload"))
            out += [(one["slice"], size, work, v) for v in values(same, "engine_active")]
    return out


def summed(terms):
    terms = [t for t in terms if t is not None]
    return sum(terms) if terms else None


def times(a, b):
    return None if a is None or b is None else a * b


def mig_capacity(rows):
    kept = [r for r in rows if r.get("core") is None]
    for key, g in groups(kept, ["site", "node", "device"]):
        cut, parent = [r for r in g if r.get("slice") is not None], [r for r in g if r.get("slice") is None]
        if not cut:
            continue
        reports = of_slices(cut)
        names = {r["slice"] for r in cut}
        instants = max(sum(r[0] == name for r in reports) for name in names) or None
        whole = slices_of(first(most(parent, "model"), most(cut, "model")))
        busy = lambda *works: summed(times(size, v) for _, size, work, v in reports if not works or work in works)
        allocated = over(summed(size for _, size, _, _ in reports), instants)
        memory = []
        for _, part in groups(cut, ["slice", "slice_profile"]):
            n = len(values(part, "engine_active"))
            memory.append((times(avg(part, "memory_used_bytes"), n), times(mean_total(part), n)))
        told = [(one, all_) for one, all_ in memory if one is not None and all_ is not None]
        share = lambda part: None if part is None or instants is None else part / instants / whole
        yield {"region": most(cut, "region"), **key, "instances": len(names), "slices_allocated": allocated,
               "slices_free": None if allocated is None else whole - allocated, "utilization_ratio": share(busy()),
               "allocated_utilization_ratio": over(busy(), summed(size for _, size, _, _ in reports)),
               "ran_utilization_ratio": share(busy("ran")), "ai_utilization_ratio": share(busy("ai")),
               "memory_used_bytes": over(summed(one for one, _ in memory), instants),
               "memory_used_ratio": over(sum(one for one, _ in told), sum(all_ for _, all_ in told)) if told else None,
               "device_engine_active_ratio": avg(parent, "engine_active"), "power_watts": avg(parent, "power_watts"),
               "energy_joules": total(parent, "energy_joules_increase")}


def radio_share(whole, cut):
    """What the radio used most of a device, its guard, and the device's energy for radio and for AI."""
    busy = first(most(whole, "sm_active"), most(whole, "engine_active"), most(whole, "utilization"))
    energy, work = total(whole, "energy_joules_increase"), most(whole, "workload")
    if not cut:
        return (0.0 if work == "ai" else busy, 0.0 if work == "ai" else 0.1,
                energy if work == "ran" else None, energy if work == "ai" else None)
    reports = of_slices(cut)
    if any(size is None for _, size, _, _ in reports):
        used = busy
    else:
        of = lambda name: max((0.0 if work == "ai" else size * v for one, size, work, v in reports if one == name), default=0.0)
        used = sum(of(name) for name in {r[0] for r in reports}) / slices_of(most(whole, "model"))
    works = {first(most(same, "workload"), most(part, "workload"))
             for _, part in groups(cut, ["slice"]) for _, same in groups(part, ["slice_profile"])}
    activity = lambda *which: summed(times(size, v) for _, size, work, v in reports if not which or work in which)
    split = lambda which: times(energy, over(activity(which), activity()))
    return used, 0.1 if works != {"ai"} else 0.0, split("ran"), split("ai")


def site_radio(g, energy_of_ran):
    cells = [r for r in g if r["stream"] == "cell"]
    packets = [r for r in g if r["stream"] == "fronthaul"]
    each = [c for _, c in groups(cells, ["node", "gnb", "cell"])]
    load = [first(avg(c, "dl_prb_utilization"), over(avg(c, "dl_prbs_used"), avg(c, "dl_prbs_available"))) for c in each]
    load = [one for one in load if one is not None]
    moved = (total(cells, "dl_bytes_increase") or 0.0) + (total(cells, "ul_bytes_increase") or 0.0) or None
    energy = total(cells, "energy_joules_increase")
    spent = summed([energy, energy_of_ran])
    early, on_time, late_ones = (total(packets, f"rx_{name}_packets_increase") for name in ("early", "on_time", "late"))
    received = None if None in (on_time, late_ones) else (early or 0.0) + on_time + late_ones
    return {"cells": len(each) or None, "dl_prb_utilization_avg_ratio": sum(load) / len(load) if load else None,
            "dl_prb_utilization_max_ratio": max(load, default=None), "radio_bytes": moved, "cell_energy_joules": energy,
            "ran_joules_per_bit_by_slice_activity": over(spent, times(8.0, moved)), "fronthaul_late_ratio": over(late_ones, received)}


PIPELINES = {  # the streams, the width of a window, and from one to the next
    "accelerator_capacity": (accelerator_capacity, ["accelerator"], 10, 10),
    "cell_capacity": (cell_capacity, ["cell"], 60, 60),
    "fronthaul_deadlines": (fronthaul_deadlines, ["fronthaul"], 60, 60),
    "host_load": (host_load, ["host"], 10, 10),
    "link_use": (link_use, ["link"], 10, 10),
    "inference_latency": (inference_latency, ["inference"], 60, 60),
    "mig_capacity": (mig_capacity, ["accelerator"], 60, 60),
    "timing_health": (timing_health, ["timing"], 60, 60),
    "site_capacity": (site_capacity, ["accelerator", "inference", "timing", "cell", "fronthaul"], 60, 60),
    "slot_budget": (slot_budget, ["cell"], 300, 60),
}


def answer(name):
    """The rows of the pipeline's closed windows."""
    aggregate, streams, width, slide = PIPELINES[name]
    out = []
    for start, rows in windows(INPUTS[name], streams, width, slide):
        opened = start / SECOND - micros(stamp(0)) / SECOND
        edges = {"window_start": stamp(opened), **({"window_end": stamp(opened + width)} if slide < width else {})}
        out += [{**edges, **r} for r in aggregate([r for r in rows if r["stream"] in streams])]
    return out


def text(rows):
    return "".join(json.dumps(r) + "\n" for r in rows)


def main():
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "pipelines")
    wrong = 0
    for name in PIPELINES:
        for file, said in (("input", text(INPUTS[name])), ("expected", text(answer(name)))):
            path = os.path.join(root, name, f"{file}.ndjson")
            if "--write" in sys.argv:
                with open(path, "w", encoding="utf-8") as out:
                    out.write(said)
                continue
            with open(path, encoding="utf-8") as kept:
                if kept.read() != said:
                    print(f"{path} is not what {os.path.basename(__file__)} says")
                    wrong += 1
    print(f"{len(PIPELINES)} pipelines, {wrong} files differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
