#!/usr/bin/env python3
"""A real Prometheus 3 sends to `airan up` by remote write 2.0.

usage: prometheus3.py AIRAN PROMETHEUS     (two binaries)

Scenario: Prometheus scrapes an exporter in OpenMetrics (a counter, a histogram that it turns into a native one with custom bounds) and
itself in protobuf (native histograms with exponential bounds), and sends all of it by remote write 2.0. In the middle `airan up` is
killed (SIGKILL) and started again.
Guarantees: what Prometheus has of a series, instant by instant, is what the lake has, once; histograms bucket by bucket; start
timestamps are the exporter's; a known histogram is in its column; Prometheus says that no sample failed or was dropped.
"""
import collections
import json
import math
import os
import sys
import threading
import time
import urllib.parse

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server

from running import Running, free_ports, get, until
from sums import check_sums

SOURCE = "remote_write/2"
OBSERVED = [0.02, 0.07, 0.3, 0.9, 4.0]
TRACE = "4bf92f3577b34da6"
SELF_HISTOGRAM = "prometheus_http_request_duration_seconds"


class Site(Running):
    def __init__(self, airan, prometheus):
        super().__init__(airan)
        folder, self.prometheus_binary = self.folder, os.path.abspath(prometheus)
        self.http, self.grpc, self.admin, self.exporter, self.prom = free_ports(5)
        (folder / "up.yaml").write_text(
            f"""node: prometheus-test
bus: {{partitions: 2}}
admin: {{listen: "127.0.0.1:{self.admin}"}}
gateway: {{http: "127.0.0.1:{self.http}", grpc: "127.0.0.1:{self.grpc}", tick: 1s}}
processor: {{commit: {{interval: 1s}}}}
agent: {{host: {{enabled: false}}, links: {{enabled: false}}}}
"""
        )
        (folder / "prometheus.yml").write_text(
            f"""global: {{scrape_interval: 1s, scrape_timeout: 1s}}
remote_write:
  - url: "http://127.0.0.1:{self.http}/api/v1/write"
    protobuf_message: io.prometheus.write.v2.Request
    send_native_histograms: true
    send_exemplars: true
    queue_config: {{batch_send_deadline: 1s, min_backoff: 100ms, max_backoff: 1s}}
scrape_configs:
  - job_name: exporter
    scrape_protocols: [OpenMetricsText1.0.0]
    scrape_native_histograms: true
    convert_classic_histograms_to_nhcb: true
    static_configs: [{{targets: ["127.0.0.1:{self.exporter}"]}}]
  - job_name: prometheus
    scrape_protocols: [PrometheusProto]
    scrape_native_histograms: true
    static_configs: [{{targets: ["127.0.0.1:{self.prom}"]}}]
"""
        )
        registry = CollectorRegistry()
        self.jobs = Counter("test_jobs", "Jobs done.", ["kind"], registry=registry)
        first_token = Histogram(
            "vllm:time_to_first_token_seconds", "Time to first token.", ["model_name"], buckets=[0.05, 0.1, 0.5, 1.0], registry=registry
        )
        for seconds in OBSERVED:
            first_token.labels("m").observe(seconds, {"trace_id": TRACE})
        self.jobs.labels("a").inc(3)
        self.registry = registry
        self.first_created = None

    def prometheus(self):
        command = [
            self.prometheus_binary, "--config.file=prometheus.yml", "--storage.tsdb.path=tsdb",
            f"--web.listen-address=127.0.0.1:{self.prom}", "--enable-feature=st-storage,exemplar-storage,metadata-wal-records",
        ]
        return self.start("prometheus", command)

    def promql(self, expression):
        query = urllib.parse.urlencode({"query": expression})
        return json.loads(get(f"http://127.0.0.1:{self.prom}/api/v1/query?{query}"))["data"]["result"]

    def dropped_exemplars(self):
        lines = get(f"http://127.0.0.1:{self.admin}/metrics").splitlines()
        wanted = 'airan_gateway_dropped_exemplars_total{door="remote_write"}'
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(wanted))

    def total(self, metric):
        return sum(float(one["value"][1]) for one in self.promql(metric))


def same_times(sent, stored):
    """What was sent up to the last instant that is stored; the rest is on its way."""
    assert stored, "nothing is stored yet"
    last = max(stored)
    return [at for at in sent if at <= last]


def series_is_stored(site, selector, sql, instants):
    """The values that Prometheus has of one series are the rows of a query, each once."""
    [series] = site.promql(f"{selector}[10m]")
    sent = {round(at * 1000): float(value) for at, value in series["values"]}
    rows = site.query(sql)
    stored = collections.Counter((row["ts"] // 1000, row["value"]) for row in rows)
    wanted = collections.Counter((at, sent[at]) for at in same_times(sent, [at for at, _ in stored]))
    assert stored == wanted and len(wanted) >= instants, (list((wanted - stored).items())[:3], list((stored - wanted).items())[:3], len(wanted))
    return True


def buckets(histogram):
    """Non-empty buckets of a stored histogram: upper bound and count."""
    bounds = histogram["bounds"] + [math.inf]
    return [(bound, count) for bound, count in zip(bounds, histogram["counts"]) if count]


def native_is_stored(site, selector, sql, instants):
    """The native histograms that Prometheus has of a series are the rows of a query, each once, bucket by bucket."""
    [series] = site.promql(f"{selector}[10m]")
    sent = {round(at * 1000): histogram for at, histogram in series["histograms"]}
    rows = site.query(sql)
    stored = {row["ts"] // 1000: row["histogram"] for row in rows}
    assert len(stored) == len(rows), "an instant is there twice"
    wanted = same_times(sent, stored)
    assert sorted(wanted) == sorted(stored) and len(wanted) >= instants, (len(wanted), len(stored))
    for at in wanted:
        theirs = [(float(upper), float(count)) for _, _, upper, count in sent[at].get("buckets", [])]
        ours = buckets(stored[at])
        assert len(theirs) == len(ours), (at, theirs, ours)
        for (their_bound, their_count), (bound, count) in zip(theirs, ours):
            assert their_count == count and (their_bound == bound or math.isclose(their_bound, bound, rel_tol=1e-12)), (theirs, ours)
        assert float(sent[at]["count"]) == stored[at]["count"] and float(sent[at]["sum"]) == stored[at]["sum"], at
    return True


def main():
    airan, prometheus = sys.argv[1:]
    with Site(airan, prometheus) as site:
        start_http_server(site.exporter, "127.0.0.1", registry=site.registry)
        created = [
            sample.value for family in site.registry.collect() for sample in family.samples if sample.name == "test_jobs_created"
        ][0]

        def work():
            while True:
                site.jobs.labels("a").inc()
                time.sleep(0.3)

        threading.Thread(target=work, daemon=True).start()
        up = site.up()
        sender = site.prometheus()
        until("Prometheus scrapes both targets", lambda: site.total('up{job=~"exporter|prometheus"}') == 2)
        jobs = f"SELECT CAST(ts AS BIGINT) AS ts, value FROM sample WHERE name = 'test_jobs_total' AND source = '{SOURCE}'"
        until("the counter is in the lake", lambda: series_is_stored(site, "test_jobs_total", jobs, 3))
        # Before the kill, which takes the counter with it: Prometheus sends an exemplar once.
        until("exemplars are counted", lambda: site.dropped_exemplars() > 0)
        up.kill()
        up.wait()
        time.sleep(3)
        up = site.up()
        time.sleep(5)

        until("the counter is in the lake over the kill, each sample once", lambda: series_is_stored(site, "test_jobs_total", jobs, 12))
        starts = site.query(f"SELECT DISTINCT CAST(start_ts AS BIGINT) AS start FROM sample WHERE name = 'test_jobs_total' "
                            f"AND source = '{SOURCE}'")
        assert len(starts) == 1 and abs(starts[0]["start"] / 1e6 - created) < 0.002, (starts, created)
        print("ok   its start timestamp is the exporter's")
        kinds = site.query(f"SELECT DISTINCT type FROM sample WHERE name = 'test_jobs_total' AND source = '{SOURCE}'")
        assert kinds == [{"type": "counter"}], kinds
        print("ok   its type came as metadata")
        until("Prometheus's own `up` is stored, each sample once", lambda: series_is_stored(
            site, 'up{job="exporter"}',
            f"SELECT CAST(ts AS BIGINT) AS ts, value FROM sample WHERE name = 'up' AND source = '{SOURCE}' "
            "AND attributes['job'] = 'exporter'", 12))
        until("a native histogram with custom bounds is in its column", lambda: native_is_stored(
            site, "vllm:time_to_first_token_seconds",
            "SELECT CAST(ts AS BIGINT) AS ts, time_to_first_token_seconds AS histogram FROM inference WHERE "
            f"source = '{SOURCE}' AND time_to_first_token_seconds IS NOT NULL", 12))
        until("native histograms with exponential bounds are stored bucket by bucket", lambda: native_is_stored(
            site, f'{SELF_HISTOGRAM}{{handler="/metrics"}}',
            f"SELECT CAST(ts AS BIGINT) AS ts, histogram FROM sample WHERE name = '{SELF_HISTOGRAM}' AND source = '{SOURCE}' "
            "AND attributes['handler'] = '/metrics' AND histogram IS NOT NULL", 12))
        for failed in ("samples_failed", "samples_dropped", "histograms_failed", "histograms_dropped"):
            count = site.total(f"prometheus_remote_storage_{failed}_total")
            assert count == 0, f"{count} {failed} by Prometheus's own count"
        assert site.total("prometheus_remote_storage_histograms_total") > 0
        retried = site.total("prometheus_remote_storage_samples_retried_total")
        print(f"ok   Prometheus failed and dropped nothing, and sent {retried:.0f} samples again")
        rows = site.query("SELECT * FROM sample") + site.query("SELECT * FROM inference")
        assert len(rows) > 100, len(rows)
        assert TRACE not in json.dumps(rows), "an exemplar's trace is in the lake"
        print("ok   no exemplar's trace is in the lake")
        check_sums(f"http://127.0.0.1:{site.admin}", "doors", "shards")
        site.end(up, "airan")
        site.check_lake()


main()
