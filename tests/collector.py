#!/usr/bin/env python3
"""A real OpenTelemetry Collector against `airan up`, which is killed twice while the Collector sends; its own file exporter is the ledger.

usage: collector.py AIRAN COLLECTOR KAFKA     (two binaries, and host:port of a broker that makes no topics by itself)

Scenario: the Collector collects this host and takes points of all kinds over OTLP, and sends them on three ways at once: OTLP/gRPC, OTLP/HTTP
and a topic of Kafka; events, with a log record among them that is none, by the first two. Two points contradict themselves. The share of a
sender is less than what comes, so the gateway throttles it. In the middle `airan up` is killed (SIGKILL) and started again, twice; the
Collector goes on by its own retries.
Guarantees: by each way every point of the ledger is in the lake, once, in its column or as a row of `sample`, with its time, value, buckets,
attributes and node, and every event; nothing else is; the Collector says itself that it has sent everything and failed nothing, that the
points and the logs that are no events were refused, and that it waited as long as it was told.
"""
import collections
import json
import os
import re
import socket
import struct
import sys
import time
import urllib.request

from ledger import COLUMNS, Ledger, stored_cells, stored_samples
from running import Running, free_ports, get, until
from sums import check_sums

REQUESTS = 300  # that are fed, 50 ms apart
KILLS = (80, 180)
LOGS = (20, 120, 220)  # requests with a log record that is no event
BROKEN = (40, 140)  # requests with a point whose buckets contradict its bounds
# A second's share of a sender, bytes: less than the Collector sends while it is fed, so it has to wait.
SHARE = "24KiB"
TOPIC = "otlp_metrics"
EVENT_WAYS = ("otlp_grpc/protobuf", "otlp_http/protobuf")
WAYS = {"otlp_grpc/protobuf": "otlp/airan", "otlp_http/protobuf": "otlphttp/airan", "kafka/otlp_proto": "kafka/others"}
# Whose the points are that name no node: the sender's address, or the topic.
NODES = {"otlp_grpc/protobuf": "127.0.0.1", "otlp_http/protobuf": "127.0.0.1", "kafka/otlp_proto": TOPIC}


def make_topic(broker, topic, partitions):
    """Kafka's own request CreateTopics, version 2."""

    def text(value):
        return struct.pack(">h", len(value)) + value.encode()

    host, port = broker.split(":")
    body = struct.pack(">hhi", 19, 2, 1) + text("airan-test") + struct.pack(">i", 1) + text(topic)
    body += struct.pack(">ihiii?", partitions, 1, 0, 0, 20_000, False)
    with socket.create_connection((host, int(port)), timeout=20) as wire:
        wire.sendall(struct.pack(">i", len(body)) + body)
        length = struct.unpack(">i", wire.recv(4, socket.MSG_WAITALL))[0]
        answer = wire.recv(length, socket.MSG_WAITALL)
    # correlation, throttle, one topic: its name and the error
    error = struct.unpack_from(">h", answer, 4 + 4 + 4 + 2 + len(topic))[0]
    assert error == 0, f"the broker makes no topic {topic}: error {error}"


class Site(Running):
    def __init__(self, airan, collector, kafka):
        super().__init__(airan)
        folder, self.collector_binary = self.folder, os.path.abspath(collector)
        self.http, self.grpc, self.admin, self.otlp, self.own = free_ports(5)
        self.ledger, self.logs = folder / "ledger.jsonl", folder / "logs.jsonl"
        (folder / "up.yaml").write_text(
            f"""node: collector-test
bus: {{partitions: 2}}
admin: {{listen: "127.0.0.1:{self.admin}"}}
gateway:
  http: "127.0.0.1:{self.http}"
  grpc: "127.0.0.1:{self.grpc}"
  tick: 1s
  share: {{bytes_per_second: {SHARE}, burst: {SHARE}}}
  kafka_in: [{{brokers: "{kafka}", topic: {TOPIC}, format: otlp_proto, group: airan}}]
processor: {{commit: {{interval: 1s}}}}
agent: {{host: {{enabled: false}}, links: {{enabled: false}}}}
"""
        )
        # Sooner than any door tells it to come again, so that a longer wait is one that it was told.
        retry = {"enabled": True, "initial_interval": "100ms", "max_interval": "300ms", "max_elapsed_time": 0}
        queue = {"enabled": True, "queue_size": 100_000, "num_consumers": 4}
        sender = {"retry_on_failure": retry, "sending_queue": queue}
        config = {
            "receivers": {
                "otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{self.otlp}"}}},
                "hostmetrics": {
                    "collection_interval": "1s",
                    "scrapers": {"cpu": {}, "load": {}, "memory": {}, "network": {}},
                },
            },
            "exporters": {
                "file": {"path": str(self.ledger)},
                "file/logs": {"path": str(self.logs)},
                "otlp/airan": {"endpoint": f"127.0.0.1:{self.grpc}", "tls": {"insecure": True}, **sender},
                "otlphttp/airan": {"endpoint": f"http://127.0.0.1:{self.http}", "compression": "zstd", **sender},
                "kafka/others": {"brokers": [kafka], "metrics": {"topic": TOPIC}, **sender},
            },
            "service": {
                "pipelines": {
                    "metrics": {
                        "receivers": ["otlp", "hostmetrics"],
                        "exporters": ["file", "otlp/airan", "otlphttp/airan", "kafka/others"],
                    },
                    "logs": {"receivers": ["otlp"], "exporters": ["file/logs", "otlp/airan", "otlphttp/airan"]},
                },
                "telemetry": {
                    "metrics": {
                        "level": "normal",
                        "readers": [
                            {"pull": {"exporter": {"prometheus": {"host": "127.0.0.1", "port": self.own}}}}
                        ],
                    }
                },
            },
        }
        (folder / "collector.json").write_text(json.dumps(config, indent=1))

    def collector(self):
        return self.start("collector", [self.collector_binary, "--config", "collector.json"])

    def feed(self, number):
        now = time.time_ns() // 1000 * 1000
        point = {"timeUnixNano": str(now), "attributes": [{"key": "turn", "value": {"stringValue": str(number % 7)}}]}
        device = [{"key": "hw.id", "value": {"stringValue": f"GPU-{number % 3}"}}]
        metrics = [
            {"name": "test.level", "gauge": {"dataPoints": [{**point, "asDouble": number / 4}]}},
            {
                "name": "test.turns",
                "sum": {
                    "isMonotonic": True,
                    "aggregationTemporality": 2,
                    "dataPoints": [{**point, "startTimeUnixNano": str(now - number * 10**7 - 1000), "asInt": str(number)}],
                },
            },
            {"name": "hw.gpu.utilization", "gauge": {"dataPoints": [{**point, "attributes": device, "asDouble": number / 1000}]}},
            {
                "name": "test.spread",
                "histogram": {
                    "aggregationTemporality": 1,
                    "dataPoints": [{**point, "count": "3", "sum": 2.5, "bucketCounts": ["1", "2"], "explicitBounds": [1]}],
                },
            },
        ]
        exponential = {"scale": 2, "zeroCount": "1", "positive": {"offset": number % 5, "bucketCounts": ["1", "0", str(number)]}}
        metrics.append(
            {
                "name": "test.exponential",
                "exponentialHistogram": {
                    "aggregationTemporality": 2,
                    "dataPoints": [{**point, "startTimeUnixNano": "1", "count": str(number + 2), "sum": number / 8, **exponential}],
                },
            }
        )
        quantiles = [{"quantile": 0.5, "value": number / 16}, {"quantile": 0.99, "value": number / 2}]
        summary = {**point, "startTimeUnixNano": "1000", "count": str(number), "sum": number / 32, "quantileValues": quantiles}
        metrics.append({"name": "test.summary", "summary": {"dataPoints": [summary]}})
        if number in BROKEN:
            broken = {**point, "count": "6", "sum": 2.5, "bucketCounts": ["1", "2", "3"], "explicitBounds": [1]}
            metrics.append({"name": "test.broken", "histogram": {"aggregationTemporality": 1, "dataPoints": [broken]}})
        host = {"attributes": [{"key": "host.name", "value": {"stringValue": "edge-fed"}}]}
        self.post("metrics", {"resourceMetrics": [{"resource": host, "scopeMetrics": [{"metrics": metrics}]}]})
        event = {"timeUnixNano": str(now), "severityNumber": 17, "attributes": device, "body": {"stringValue": "not kept"}}
        records = [{**event, "eventName": f"fed.{number}"}]
        if number in LOGS:
            records.append(event)
        self.post("logs", {"resourceLogs": [{"resource": host, "scopeLogs": [{"logRecords": records}]}]})

    def post(self, signal, body):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.otlp}/v1/{signal}", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200

    def takes_points(self):
        self.own_metrics()
        socket.create_connection(("127.0.0.1", self.otlp), timeout=5).close()
        return True

    def own_metrics(self):
        """The Collector's own counters, by name without `_total` and `__unit`, and exporter."""
        found = collections.defaultdict(float)
        for line in get(f"http://127.0.0.1:{self.own}/metrics").splitlines():
            if line.startswith("otelcol_exporter") and "exporter=" in line:
                name = line.split("{")[0].split("__")[0].removesuffix("_total")
                exporter = line.split('exporter="')[1].split('"')[0]
                found[name, exporter] += float(line.rsplit(" ", 1)[1])
        return found


def events(logs):
    """(name, time in microseconds, device) of every event in the ledger of logs, and how many records are none."""
    found, others = [], 0
    for line in logs.read_text().splitlines():
        for resource in json.loads(line)["resourceLogs"]:
            for record in (record for scope in resource["scopeLogs"] for record in scope["logRecords"]):
                if "eventName" in record:
                    at = int(record["timeUnixNano"]) // 1000
                    found.append((record["eventName"], at, record["attributes"][0]["value"]["stringValue"]))
                else:
                    others += 1
    return found, others


def expect(what, stored, wanted):
    stored, wanted = collections.Counter(stored), collections.Counter(wanted)
    lost, extra = wanted - stored, stored - wanted
    if lost or extra or not wanted:
        raise SystemExit(f"FAIL {what}: {len(wanted)} wanted, {sum(lost.values())} lost, {sum(extra.values())} too many: "
                         f"{list(lost.items())[:3]} {list(extra.items())[:3]}")
    print(f"ok   {what}: {sum(wanted.values())}, each once")


def compare(site, ledger):
    """Every point of the ledger by every way, and nothing else."""
    for source in WAYS:
        cells, samples = ledger.named(NODES[source])
        stored = stored_samples(site.query(
            "SELECT name, node, CAST(ts AS BIGINT) AS at, CAST(start_ts AS BIGINT) AS start, type, value, text, histogram, attributes "
            f"FROM sample WHERE source = '{source}'"))
        expect(f"{source}: rows of sample", stored, samples)
        for table in sorted({table for table, _ in COLUMNS.values()}):
            rows = site.query(f"SELECT *, CAST(ts AS BIGINT) AS at FROM {table} WHERE source = '{source}'")
            stored, instants = stored_cells(table, rows)
            expect(f"{source}: cells of {table}", stored, {key: count for key, count in cells.items() if key[0] == table})
            assert len(rows) == instants, f"{table}: {len(rows)} rows of {instants} instants"


def no_twins(site):
    """No row of any table is there twice: not by the number that it got at the door."""
    for table in ("sample", "event", *sorted({table for table, _ in COLUMNS.values()})):
        [found] = site.query(f"SELECT count(*) AS n, count(DISTINCT concat(node, ':', batch, ':', seq)) AS ids FROM {table}")
        assert found["n"] == found["ids"] > 0, (table, found)
        print(f"ok   {table}: {found['n']} rows, none twice")


def seconds(text):
    """A duration as Go prints it: 1m2.5s, 200ms."""
    unit = {"h": 3600, "m": 60, "s": 1, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}
    return sum(float(number) * unit[of] for number, of in re.findall(r"([0-9.]+)(h|ms|m|s|µs|ns)", text))


def check_throttling(log):
    """The Collector was told to wait, by each door in its own words, and its wait was as long."""
    for door, word in [("otlp/airan", "code = ResourceExhausted"), ("otlphttp/airan", "Status Code 429")]:
        waits = []
        for line in log:
            if "Will retry" in line and f'"{door}"' in line and word in line:
                told = re.search(r"Throttle \(([^)]*)\)", line)
                assert told, f"no time to wait: {line}"
                waits.append((seconds(told.group(1)), seconds(re.search(r'"interval": "([^"]*)"', line).group(1))))
        assert waits, f"{door} was never throttled"
        assert all(waited >= told > 0 for told, waited in waits), waits
        print(f"ok   {door} was throttled {len(waits)} times, and waited up to {max(waited for _, waited in waits):.1f} s, as it was told")


def compare_events(site):
    wanted, others = events(site.logs)
    assert (len(wanted), others) == (REQUESTS, len(LOGS)), (len(wanted), others)
    for source in EVENT_WAYS:
        rows = site.query(f"SELECT name, CAST(ts AS BIGINT) AS ts, object, severity, node FROM event WHERE source = '{source}'")
        assert {(row["severity"], row["node"]) for row in rows} == {("major", "edge-fed")}, rows[:3]
        expect(f"{source}: events", [(r["name"], r["ts"], r["object"]) for r in rows], wanted)


def main():
    airan, collector, kafka = sys.argv[1:]
    make_topic(kafka, TOPIC, 3)
    with Site(airan, collector, kafka) as site:
        up = site.up()
        sender = site.collector()
        until("the Collector takes points", site.takes_points, sender)
        for number in range(REQUESTS):
            site.feed(number)
            if number in KILLS:
                up.kill()
                up.wait()
                print(f"     airan killed after {number} requests", flush=True)
            if number - 30 in KILLS:
                up = site.up()
            time.sleep(0.05)

        def sent():
            own = site.own_metrics()
            counts = [own["otelcol_exporter_sent_metric_points", name] for name in ("file", *WAYS.values())]
            waiting = sum(own["otelcol_exporter_queue_size", name] for name in WAYS.values())
            fed = 6 * REQUESTS
            logs = [own["otelcol_exporter_sent_log_records", WAYS[way]] for way in EVENT_WAYS]
            events = min(logs) >= REQUESTS + len(LOGS)
            return counts if waiting == 0 and events and counts[0] > fed and max(counts) - min(counts) < 400 else None

        until("the Collector's queues are empty", sent)
        site.end(sender, "the Collector")
        log = (site.folder / "collector.log").read_text()
        assert "Exporting failed. Dropping data" not in log, "the Collector dropped points"
        partial = [line for line in log.splitlines() if "artial success" in line]
        for door in ("otlp/airan", "otlphttp/airan"):
            for signal, word, count in [("logs", "not_an_event", len(LOGS)), ("metrics", "malformed", len(BROKEN))]:
                said = [line for line in partial if f'"{door}"' in line and f'"otelcol.signal": "{signal}"' in line]
                # A request that was sent again is told of again.
                assert len(said) >= count and all(word in line for line in said), (door, signal, said or partial[:3])
        print(f"ok   the Collector says what was refused of its logs and of its points: {len(partial)} lines")
        assert "Will retry" in log, "the Collector never had to retry: the kills show nothing"
        check_throttling(log.splitlines())
        ledger = Ledger(site.ledger.read_text(), "test.broken")
        assert ledger.refused == len(BROKEN), ledger.refused
        print(f"     the Collector's ledger has {ledger.points} points: {sum(ledger.cells.values())} cells and "
              f"{sum(ledger.samples.values())} rows of sample")
        last = max(at for _, _, _, at, column, _ in ledger.cells if column == "load1")
        for source in WAYS:
            until(
                f"{source}: the last points are in the lake",
                lambda: site.query(f"SELECT count(*) AS n FROM host WHERE source = '{source}' AND CAST(ts AS BIGINT) = {last}")[0]["n"]
                and site.query(f"SELECT count(*) AS n FROM sample WHERE source = '{source}'")[0]["n"] >= sum(ledger.samples.values()),
            )
        last = max(at for _, at, _ in events(site.logs)[0])
        for source in EVENT_WAYS:
            until(
                f"{source}: the last event is in the lake",
                lambda: site.query(f"SELECT count(*) AS n FROM event WHERE source = '{source}' AND CAST(ts AS BIGINT) = {last}")[0]["n"],
            )
        compare(site, ledger)
        compare_events(site)
        no_twins(site)
        check_sums(f"http://127.0.0.1:{site.admin}", "doors", "shards")
        site.end(up, "airan")
        site.check_lake()


main()
