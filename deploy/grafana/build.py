#!/usr/bin/env python3
"""Writes the dashboards of this folder: one JSON file each, for Grafana 10 and newer with a Prometheus data source.

They are generated so that panels look alike and a metric's name stands in one place. `--check` compares the files with what
would be written and ends with an error where they differ.

usage: build.py [--check]
"""
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
SOURCE = {"type": "prometheus", "uid": "${source}"}
SITE = '{region=~"$region",site=~"$site"}'

# Units by Grafana's names. Values are in base units, so that Grafana scales them.
RATIO, SECONDS, BYTES, WATTS, JOULES, CELSIUS = "percentunit", "s", "bytes", "watt", "joule", "celsius"
PER_SECOND, BYTES_PER_SECOND, COUNT = "cps", "Bps", "short"


def dashboard(uid, title, about, panels, by_site=True):
    return {
        "uid": f"airan-{uid}",
        "title": f"airan: {title}",
        "description": about,
        "tags": ["airan"],
        "timezone": "browser",
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "schemaVersion": 39,
        "links": [{"type": "dashboards", "title": "airan", "tags": ["airan"], "asDropdown": True, "keepTime": True}],
        "templating": {"list": variables(by_site)},
        "panels": placed(panels),
    }


def variables(by_site):
    found = [{"name": "source", "label": "data source", "type": "datasource", "query": "prometheus"}]
    if by_site:
        for name, query in [
            ("region", 'label_values({__name__=~"airan_(site|host|timing|cell|fronthaul).+"}, region)'),
            ("site", 'label_values({__name__=~"airan_(site|host|timing|cell|fronthaul).+",region=~"$region"}, site)'),
        ]:
            found.append({
                "name": name, "type": "query", "datasource": SOURCE, "refresh": 2, "sort": 1,
                "query": {"query": query, "refId": name}, "multi": True, "includeAll": True, "allValue": ".*",
                "current": {"text": "All", "value": "$__all"},
            })
    return found


def placed(panels):
    """Two panels a row, 12 by 8; a headline of stats is one row of equal parts."""
    out, x, y = [], 0, 0
    for number, panel in enumerate(panels, 1):
        width, height = panel.pop("size")
        if x + width > 24:
            x, y = 0, y + 8
        out.append({"id": number, "gridPos": {"x": x, "y": y, "w": width, "h": height}, **panel})
        x += width
    return out


def targets(queries):
    return [
        {"refId": chr(65 + at), "datasource": SOURCE, "expr": expr, "legendFormat": legend}
        for at, (expr, legend) in enumerate(queries)
    ]


def lines(title, unit, *queries, about="", lowest=0, steps=None):
    """Values over time. Gaps stay gaps: a silent node is not a straight line."""
    custom = {"lineWidth": 1, "fillOpacity": 8, "spanNulls": False, "showPoints": "never"}
    defaults = {"unit": unit, "custom": custom}
    if lowest is not None:
        defaults["min"] = lowest
    if steps:
        custom["thresholdsStyle"] = {"mode": "line"}
        defaults["thresholds"] = thresholds(steps)
    return {
        "type": "timeseries", "title": title, "description": about, "datasource": SOURCE, "size": (12, 8),
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": targets(queries),
    }


def stat(title, unit, expr, about="", steps=None):
    defaults = {"unit": unit}
    if steps:
        defaults["thresholds"] = thresholds(steps)
    return {
        "type": "stat", "title": title, "description": about, "datasource": SOURCE, "size": (4, 8),
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}, "graphMode": "area"},
        "targets": targets([(expr, "")]),
    }


def thresholds(steps):
    first = [{"color": steps[0][1], "value": None}]
    return {"mode": "absolute", "steps": first + [{"color": color, "value": value} for value, color in steps[1:]]}


def rising(warn, bad):
    return [(None, "green"), (warn, "orange"), (bad, "red")]


def falling(bad, warn):
    return [(None, "red"), (bad, "orange"), (warn, "green")]


DASHBOARDS = [
    dashboard("site", "site overview", "Accelerators, inference, timing and radio of a site in one place.", [
        stat("sites", COUNT, f"count(count by (site) (airan_site_accelerators{SITE}))"),
        stat("accelerators", COUNT, f"sum(airan_site_accelerators{SITE})"),
        stat("least headroom", RATIO, f"min(airan_site_accelerator_headroom_ratio{SITE})",
             "Of the busiest accelerator of any site", falling(0.05, 0.15)),
        stat("power", WATTS, f"sum(airan_accelerator_power_watts{SITE})"),
        stat("tokens", PER_SECOND, f"sum(rate(airan_site_generation_tokens_total{SITE}[5m]))"),
        stat("clocks out of lock", RATIO, f"max(airan_site_clock_not_locked_ratio{SITE})",
             "Share of reports, worst site", rising(0.0001, 0.01)),
        lines("accelerator utilisation", RATIO, (f"airan_site_accelerator_utilization_ratio{SITE}", "{{site}}")),
        lines("headroom for AI", RATIO, (f"airan_site_accelerator_headroom_ratio{SITE}", "{{site}}"),
              about="1 - busiest report of the window - guard of 0.10"),
        lines("time to first token, 99 %", SECONDS,
              (f"airan_site_time_to_first_token_p99_seconds{SITE}", "{{site}}"), steps=rising(1, 2)),
        lines("energy per token", JOULES, (f"airan_site_energy_per_token_joules{SITE}", "{{site}}")),
        lines("largest clock offset", SECONDS, (f"airan_site_clock_offset_max_seconds{SITE}", "{{site}}"),
              about="1.1 us of the 1.5 us for TDD are the network's share (ITU-T G.8271.1)", steps=rising(0.5e-6, 1.1e-6)),
        lines("host CPU", RATIO, (f"airan_host_cpu_utilization_ratio{SITE}", "{{node}}")),
        lines("accelerators to sell", COUNT, (f"airan_site_sellable_accelerators{SITE}", "{{site}}"),
              about="Sum over the devices of 1 - most the radio used - guard of 0.10; a device without radio counts as a whole"),
        lines("downlink PRBs in use", RATIO, (f"airan_site_dl_prb_utilization_ratio{SITE}", "mean {{site}}"),
              (f"airan_site_dl_prb_utilization_max_ratio{SITE}", "fullest cell {{site}}"), steps=rising(0.7, 0.85)),
        lines("energy by purpose, as power", WATTS,
              (f"rate(airan_site_ran_energy_by_slice_activity_joules_total{SITE}[5m])", "accelerators, radio {{site}}"),
              (f"rate(airan_site_ai_energy_by_slice_activity_joules_total{SITE}[5m])", "accelerators, AI {{site}}"),
              (f"rate(airan_site_cell_energy_joules_total{SITE}[5m])", "cells {{site}}"),
              about="Energy of shared devices by the activity of MIG slices"),
        lines("energy per bit of the radio", JOULES, (f"airan_site_ran_energy_per_bit_by_slice_activity_joules{SITE}", "{{site}}"),
              about="Cells and the radio's share of the accelerators, by transport-block bits"),
        lines("energy per token of AI", JOULES, (f"airan_site_ai_energy_per_token_by_slice_activity_joules{SITE}", "{{site}}"),
              about="AI's share of the accelerators by the activity of MIG slices"),
        lines("late fronthaul packets", RATIO, (f"airan_site_fronthaul_late_ratio{SITE}", "{{site}}")),
    ]),
    dashboard("accelerator", "accelerators", "Each accelerator and MIG slice.", [
        lines("utilisation", RATIO, (f"airan_accelerator_utilization_ratio{SITE}", "{{node}} {{device}} {{slice}}")),
        lines("SM active", RATIO, (f"airan_accelerator_sm_active_ratio{SITE}", "{{node}} {{device}} {{slice}}")),
        lines("tensor pipe active", RATIO,
              (f"airan_accelerator_tensor_active_ratio{SITE}", "{{node}} {{device}} {{slice}}")),
        lines("memory in use", RATIO, (f"airan_accelerator_memory_used_ratio{SITE}", "{{node}} {{device}} {{slice}}"),
              steps=rising(0.9, 0.95)),
        lines("power", WATTS, (f"airan_accelerator_power_watts{SITE}", "{{node}} {{device}} {{slice}}")),
        lines("energy, as power", WATTS,
              (f"rate(airan_accelerator_energy_joules_total{SITE}[5m])", "{{node}} {{device}} {{slice}}"),
              about="The energy counter's rate: it should agree with the power the device reports"),
        lines("temperature", CELSIUS, (f"airan_accelerator_temperature_max_celsius{SITE}", "{{node}} {{device}}"),
              steps=rising(80, 85)),
        lines("XID errors", COUNT,
              (f"increase(airan_accelerator_xid_errors_total{SITE}[1h])", "in an hour {{node}} {{device}}"),
              (f"airan_accelerator_xid_last_code{SITE}", "last code {{node}} {{device}}"),
              about="The code is that of the last error, 0 for none; dcgm-exporter tells the code alone"),
        lines("headroom", RATIO, (f"airan_accelerator_headroom_ratio{SITE}", "{{node}} {{device}} {{slice}}")),
        lines("MIG: slices", COUNT, (f"airan_mig_slices_allocated{SITE}", "allocated {{node}} {{device}}"),
              (f"airan_mig_slices_free{SITE}", "free {{node}} {{device}}"), (f"airan_mig_instances{SITE}", "instances {{node}} {{device}}")),
        lines("MIG: utilisation", RATIO, (f"airan_mig_utilization_ratio{SITE}", "of the device {{node}} {{device}}"),
              (f"airan_mig_allocated_utilization_ratio{SITE}", "of the allocated {{node}} {{device}}"),
              about="Utilisation of the instances weighted by their slices"),
        lines("MIG: for whom", RATIO, (f"airan_mig_ran_utilization_ratio{SITE}", "radio {{node}} {{device}}"),
              (f"airan_mig_ai_utilization_ratio{SITE}", "AI {{node}} {{device}}")),
    ]),
    dashboard("timing", "timing", "PTP clocks: offset, path delay, lock.", [
        lines("offset, 99 % of reports below", SECONDS,
              (f"airan_timing_offset_p99_seconds{SITE}", "{{node}} {{process}} {{interface}}"), steps=rising(0.5e-6, 1.1e-6)),
        lines("largest offset", SECONDS,
              (f"airan_timing_offset_max_seconds{SITE}", "{{node}} {{process}} {{interface}}"), steps=rising(0.5e-6, 1.1e-6)),
        lines("reports out of lock", RATIO,
              (f"airan_timing_not_locked_ratio{SITE}", "{{node}} {{process}} {{interface}}")),
        lines("path delay", SECONDS,
              (f"airan_timing_path_delay_max_seconds{SITE}", "{{node}} {{process}} {{interface}}")),
        lines("clock class", COUNT, (f"airan_timing_clock_class{SITE}", "{{node}} {{process}}"),
              about="6 locked to a primary reference, 7 holdover, 248 default (IEEE 1588)"),
        lines("process restarts", COUNT,
              (f"increase(airan_timing_process_restarts_total{SITE}[1h])", "{{node}} {{process}}")),
    ]),
    dashboard("radio", "radio", "Cells and their fronthaul: load, users, deadlines.", [
        lines("downlink PRBs in use", RATIO, (f"airan_cell_dl_prb_utilization_ratio{SITE}", "{{gnb}} {{cell}}"),
              steps=rising(0.7, 0.85)),
        lines("uplink PRBs in use", RATIO, (f"airan_cell_ul_prb_utilization_ratio{SITE}", "{{gnb}} {{cell}}"),
              steps=rising(0.7, 0.85)),
        lines("saturated reports", RATIO, (f"airan_cell_dl_saturated_ratio{SITE}", "downlink {{gnb}} {{cell}}"),
              (f"airan_cell_ul_saturated_ratio{SITE}", "uplink {{gnb}} {{cell}}"),
              about="Share of the window's reports with at least 85 % of the PRBs in use"),
        lines("throughput", BYTES_PER_SECOND, (f"airan_cell_dl_bytes_per_second{SITE}", "downlink {{gnb}} {{cell}}"),
              (f"airan_cell_ul_bytes_per_second{SITE}", "uplink {{gnb}} {{cell}}")),
        lines("slot budget", RATIO, (f"airan_slot_budget_used_ratio{SITE}", "mean {{gnb}} {{cell}}"),
              (f"airan_slot_budget_used_p99_ratio{SITE}", "p99 {{gnb}} {{cell}}"),
              about="Time the scheduler took for a slot over the slot's length, over 5 min", steps=rising(0.7, 0.9)),
        lines("allowed late slots", RATIO, (f"airan_slot_misses_used_ratio{SITE}", "used {{gnb}} {{cell}}"),
              (f"airan_slot_misses_left_ratio{SITE}", "left {{gnb}} {{cell}}"),
              about="1 used is the objective: 99.98 % of the slots in time, over 5 min", steps=rising(0.5, 1)),
        lines("connected UEs", COUNT, (f"airan_cell_connected_ues{SITE}", "{{gnb}} {{cell}}"),
              (f"airan_cell_connected_ues_max{SITE}", "most {{gnb}} {{cell}}")),
        lines("late packets", RATIO, (f"airan_fronthaul_late_ratio{SITE}", "{{node}} {{cell}}{{ru}}")),
        lines("allowed misses used", RATIO, (f"airan_fronthaul_budget_used_ratio{SITE}", "{{node}} {{cell}}{{ru}}"),
              about="1 is the objective: 99.98 % of the uplink packets within their window", steps=rising(0.5, 1)),
        lines("missed uplink symbols", PER_SECOND,
              (f"rate(airan_fronthaul_missed_ul_symbols_total{SITE}[5m])", "{{node}} {{cell}}{{ru}}")),
        lines("late slots", PER_SECOND, (f"rate(airan_fronthaul_late_dl_slots_total{SITE}[5m])", "downlink {{node}} {{cell}}{{ru}}"),
              (f"rate(airan_fronthaul_late_ul_slot_requests_total{SITE}[5m])", "uplink requests {{node}} {{cell}}{{ru}}")),
    ]),
    dashboard("inference", "inference", "Model servers: latency, queue, cache, tokens.", [
        lines("time to first token", SECONDS,
              (f"airan_inference_time_to_first_token_p50_seconds{SITE}", "p50 {{node}} {{model}}"),
              (f"airan_inference_time_to_first_token_p99_seconds{SITE}", "p99 {{node}} {{model}}")),
        lines("time per output token", SECONDS,
              (f"airan_inference_time_per_output_token_p50_seconds{SITE}", "p50 {{node}} {{model}}"),
              (f"airan_inference_time_per_output_token_p99_seconds{SITE}", "p99 {{node}} {{model}}")),
        lines("waiting time", SECONDS, (f"airan_inference_queue_time_p99_seconds{SITE}", "p99 {{node}} {{model}}")),
        lines("requests", COUNT, (f"airan_inference_requests_running{SITE}", "running {{node}} {{model}}"),
              (f"airan_inference_requests_waiting_max{SITE}", "waiting {{node}} {{model}}")),
        lines("KV cache in use", RATIO, (f"airan_inference_kv_cache_usage_max_ratio{SITE}", "{{node}} {{model}}"),
              steps=rising(0.9, 0.95)),
        lines("tokens", PER_SECOND,
              (f"airan_inference_generation_tokens_per_second{SITE}", "generated {{node}} {{model}}"),
              (f"airan_inference_prompt_tokens_per_second{SITE}", "prompt {{node}} {{model}}")),
    ]),
    dashboard("link", "hosts and links", "Servers and their interfaces.", [
        lines("CPU", RATIO, (f"airan_host_cpu_utilization_ratio{SITE}", "{{node}}")),
        lines("memory", RATIO, (f"airan_host_memory_used_ratio{SITE}", "{{node}}"), steps=rising(0.9, 0.95)),
        lines("fullest file system", RATIO, (f"airan_host_fullest_filesystem_ratio{SITE}", "{{node}}"),
              steps=rising(0.8, 0.9)),
        lines("disk", BYTES_PER_SECOND, (f"airan_host_disk_read_bytes_per_second{SITE}", "read {{node}}"),
              (f"airan_host_disk_written_bytes_per_second{SITE}", "written {{node}}")),
        lines("link, received", BYTES_PER_SECOND,
              (f"airan_link_receive_bytes_per_second{SITE}", "{{node}} {{interface}}")),
        lines("link, sent", BYTES_PER_SECOND,
              (f"airan_link_transmit_bytes_per_second{SITE}", "{{node}} {{interface}}")),
        lines("link utilisation", RATIO, (f"airan_link_utilization_ratio{SITE}", "{{node}} {{interface}}"),
              steps=rising(0.8, 0.9)),
        lines("errors and drops", PER_SECOND, (f"rate(airan_link_errors_total{SITE}[5m])", "errors {{node}} {{interface}}"),
              (f"rate(airan_link_drops_total{SITE}[5m])", "drops {{node}} {{interface}}")),
    ]),
    dashboard("pipeline", "the pipeline itself", "From doors to lake: rows, lag, commits, refusals and the sums.", [
        stat("rows in", PER_SECOND, 'sum(rate(airan_gateway_rows_total{outcome="received"}[5m]))'),
        stat("refused", RATIO,
             'sum(rate(airan_gateway_rows_total{outcome="refused"}[5m])) '
             '/ sum(rate(airan_gateway_rows_total{outcome="received"}[5m]))', "", rising(0.001, 0.01)),
        stat("shards at work", COUNT, "sum(airan_processor_shard_up)"),
        stat("most lag", SECONDS, "max(airan_processor_lag_seconds)", "", rising(60, 120)),
        stat("stopped pipelines", COUNT, "sum(airan_processor_pipeline_stopped)", "", rising(1, 1)),
        stat("windows to restate", COUNT, "sum(airan_processor_dirty_windows)"),
        lines("rows by door", PER_SECOND,
              ('sum by (door, outcome) (rate(airan_gateway_rows_total{outcome!="received"}[5m]))', "{{door}} {{outcome}}")),
        lines("rows by shard", PER_SECOND,
              ("sum by (partition, outcome) (rate(airan_processor_rows_total[5m]))", "{{partition}} {{outcome}}")),
        lines("lag", SECONDS, ("airan_processor_lag_seconds", "{{partition}}")),
        lines("watermark delay", SECONDS, ("max by (stream) (airan_processor_watermark_delay_seconds)", "{{stream}}"),
              about="How far event time is behind the clock, by stream, before the pipelines' lateness; of the partition "
                    "that is furthest behind, among those where a node reports the stream"),
        lines("time of a commit, 99 %", SECONDS,
              ("histogram_quantile(0.99, sum by (le) (rate(airan_lake_commit_seconds_bucket[5m])))", "p99"),
              ("histogram_quantile(0.5, sum by (le) (rate(airan_lake_commit_seconds_bucket[5m])))", "p50")),
        lines("lake, written", BYTES_PER_SECOND, ("sum(rate(airan_lake_bytes_total[5m]))", "bytes")),
        lines("time to acknowledge, 99 %", SECONDS,
              ("histogram_quantile(0.99, sum by (le) (rate(airan_gateway_ack_seconds_bucket[5m])))", "p99")),
        lines("memory", BYTES, ("process_resident_memory_bytes{job=~\"airan.*\"}", "{{instance}}")),
        lines("where a shard's time goes", RATIO,
              ("sum by (step) (rate(airan_processor_step_seconds_total[5m]))", "{{step}}"),
              about="Seconds of work a second; 1 is one core"),
        lines("behind in others' Kafka topics", COUNT,
              ("sum by (topic) (airan_gateway_kafka_lag_messages)", "{{topic}}"),
              about="Messages that are in the topics of gateway.kafka_in and not yet on the bus"),
        lines("queue of the agents", COUNT, ("airan_agent_queued_rows", "{{instance}}")),
    ], by_site=False),
]


def main():
    check = sys.argv[1:] == ["--check"]
    stale = []
    for one in DASHBOARDS:
        path = HERE / f"{one['uid']}.json"
        text = json.dumps(one, indent=1, ensure_ascii=False) + "\n"
        if check and (not path.exists() or path.read_text() != text):
            stale.append(path.name)
        elif not check:
            path.write_text(text)
    if stale:
        sys.exit(f"not what build.py writes: {', '.join(stale)}; run deploy/grafana/build.py")


if __name__ == "__main__":
    main()
