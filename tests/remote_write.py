#!/usr/bin/env python3
"""A target that a real Prometheus scrapes and sends on by remote write 1.0, until the target stops; then what Prometheus's own store holds of
it is compared with the lake.

usage: remote_write.py PORT PROMETHEUS-URL AIRAN-ADMIN-URL AIRAN QUERY-OPTION...      (needs prometheus_client)

Prometheus scrapes 127.0.0.1:PORT as job `exporter`, every second, and sends to an `airan up` whose lake `AIRAN query QUERY-OPTION...` reads.
Scenario: the target has a counter, a gauge and two classic histograms, one with a column and one without; after ten scrapes it stops, so
Prometheus ends its series with stale markers.
Guarantees: every sample that Prometheus holds of the job's series is in the lake, once, with its labels, buckets one by one; stale markers
are counted and are no rows; nothing else is there, and no NaN; Prometheus failed and dropped nothing.
"""
import collections
import http.server
import json
import math
import subprocess
import sys
import threading
import time
import urllib.parse

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from running import get, until

SOURCE = "remote_write/1"
SCRAPES = 10
# In a column of its own; where Prometheus cuts its lines apart into two requests, rows of `sample`.
MAPPED, COLUMN = "vllm:time_to_first_token_seconds", "time_to_first_token_seconds"
NAMES = {"test_jobs_total", "test_jobs_created", "test_level", "up", "scrape_duration_seconds", "scrape_samples_scraped",
         *(f"{name}_{part}" for name in ("test_wait_seconds", MAPPED) for part in ("bucket", "sum", "count"))}


class Target:
    def __init__(self, port):
        registry = CollectorRegistry()
        jobs = Counter("test_jobs", "Jobs done.", ["kind"], registry=registry)
        level = Gauge("test_level", "A level.", registry=registry)
        bounds = [0.05, 0.1, 0.5, 1.0]
        wait = Histogram("test_wait_seconds", "Waits.", registry=registry, buckets=bounds)
        token = Histogram(MAPPED, "Time to first token.", ["model_name"], registry=registry, buckets=bounds)

        class Page(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                # The client library writes no colon into a name for a Prometheus of before UTF-8 names; model servers do.
                body = generate_latest(registry).replace(MAPPED.replace(":", "_").encode(), MAPPED.encode())
                self.send_response(200)
                self.send_header("content-type", "text/plain; version=0.0.4")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Page)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

        def work():
            number = 0
            while True:
                number += 1
                jobs.labels("a").inc()
                level.set(number / 8)
                wait.observe(number % 13 / 10)
                token.labels("m").observe(number % 7 / 10)
                time.sleep(0.2)

        threading.Thread(target=work, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Check:
    def __init__(self, prometheus, admin, query):
        self.prometheus, self.admin, self.query_command = prometheus, admin, query
        # Millisecond up to which is compared.
        self.last = None

    def promql(self, expression):
        text = get(f"{self.prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expression})}", 30)
        return json.loads(text)["data"]["result"]

    def rows(self, sql):
        return json.loads(subprocess.run([*self.query_command, sql], check=True, capture_output=True, text=True, timeout=120).stdout)

    def counter(self, url, name, **labels):
        """The sum of a counter's series on a page of metrics."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in get(f"{url}/metrics", 30).splitlines()
            if line.split("{")[0].split(" ")[0] == name and all(one in line for one in wanted)
        )

    def sent(self):
        """(name, labels, millisecond, value) of all that Prometheus holds of the job; it gives no stale markers."""
        found = collections.Counter()
        for series in self.promql('{job="exporter"}[10m]'):
            labels = tuple(sorted((key, value) for key, value in series["metric"].items() if key != "__name__"))
            for at, value in series["values"]:
                found[series["metric"]["__name__"], labels, round(at * 1000), float(value)] += 1
        return found

    def stored(self):
        """The same of the lake; a histogram in its column is its lines again. And how many there are."""
        found, whole = collections.Counter(), 0
        rows = self.rows("SELECT name, CAST(ts AS BIGINT) AS ts, value, text, histogram, attributes FROM sample WHERE "
                         f"source = '{SOURCE}' AND attributes['job'] = 'exporter'")
        for row in rows:
            assert row["text"] is None and row["histogram"] is None and row["value"] is not None, row
            found[row["name"], tuple(sorted(row["attributes"].items())), row["ts"] // 1000, row["value"]] += 1
        for row in self.rows(f"SELECT * , CAST(ts AS BIGINT) AS at FROM inference WHERE source = '{SOURCE}'"):
            histogram, at = row[COLUMN], row["at"] // 1000
            labels = {**row["attributes"], "instance": row["server"], "model_name": row["model"]}
            whole += 1

            def line(part, value, **more):
                found[f"{MAPPED}_{part}", tuple(sorted({**labels, **more}.items())), at, float(value)] += 1

            line("sum", histogram["sum"])
            line("count", histogram["count"])
            below = 0
            for bound, count in zip([*histogram["bounds"], math.inf], histogram["counts"], strict=True):
                below += count
                line("bucket", below, le="+Inf" if bound == math.inf else str(bound))
        return found, whole

    def agree(self):
        sent, (stored, whole) = self.sent(), self.stored()
        # `up` and the like go on.
        sent, stored = ({key: count for key, count in found.items() if key[2] <= self.last} for found in (sent, stored))
        sent, stored = collections.Counter(sent), collections.Counter(stored)
        lost, extra = sent - stored, stored - sent
        assert not lost and not extra, f"{sum(lost.values())} lost, {sum(extra.values())} too many: {list(lost)[:3]} {list(extra)[:3]}"
        names = {name for name, *_ in sent}
        assert NAMES <= names, NAMES - names
        instants = {at for name, _, at, _ in sent if name == "test_wait_seconds_bucket"}
        assert len(instants) >= SCRAPES, instants
        assert whole, f"no histogram is in the column {COLUMN}"
        return sum(sent.values()), len(names), len(instants), whole


def main():
    port, prometheus, admin, *query = sys.argv[1:]
    check = Check(prometheus, admin, [*query[:1], "query", *query[1:], "--format", "json"])
    target = Target(int(port))
    until("Prometheus has scraped the target often enough",
          lambda: float(check.promql('count_over_time(test_level[10m])')[0]["value"][1]) >= SCRAPES)
    sentinels = lambda: check.counter(admin, "airan_gateway_samples_total", door="remote_write", landed="sentinel")
    before, series = sentinels(), len(check.promql('{job="exporter"}'))
    target.stop()
    until("the target is down", lambda: check.promql('up{job="exporter"}')[0]["value"][1] == "0")
    until("its series have ended in Prometheus", lambda: not check.promql('test_level') and not check.promql('test_wait_seconds_bucket'))
    until("their stale markers came", lambda: sentinels() - before >= series - 5)
    check.last = round(time.time() * 1000)
    samples, names, instants, whole = until("what Prometheus holds of the target is in the lake, each sample once", check.agree)
    print(f"     {samples} samples of {names} metrics, {instants} scrapes; {whole} histograms came whole")
    [found] = check.rows(f"SELECT count(*) AS n FROM sample WHERE source = '{SOURCE}' AND isnan(value)")
    assert found["n"] == 0, f"{found['n']} rows of NaN"
    for failed in ("samples_failed", "samples_dropped", "histograms_failed"):
        count = check.counter(prometheus, f"prometheus_remote_storage_{failed}_total")
        assert count == 0, f"{count} {failed} by Prometheus's own count"
    print("ok   no row is NaN, and Prometheus failed and dropped nothing")


main()
