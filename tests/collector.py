#!/usr/bin/env python3
"""A real OpenTelemetry Collector against `airan up`, which is killed twice while the Collector sends; its own file exporter is the ledger.

usage: collector.py AIRAN COLLECTOR KAFKA     (two binaries, and host:port of a broker that makes no topics by itself)

Scenario: the Collector collects this host and takes points of all kinds over OTLP, and sends them on three ways at once: OTLP/gRPC, OTLP/HTTP
and a topic of Kafka; events, with a log record among them that is none, by the first two. In the middle `airan up` is killed (SIGKILL) and
started again, twice; the Collector goes on by its own retries.
Guarantees: by each way every point of the ledger is in the lake with its time and value, once, and every event; nothing else is; the
Collector says itself that it has sent everything and failed nothing, and of logs that are no events that they were refused.
"""
import collections
import json
import os
import socket
import struct
import sys
import time
import urllib.request

from running import Running, free_ports, get, until
from sums import check_sums

REQUESTS = 300  # that are fed, 50 ms apart
KILLS = (80, 180)
LOGS = (20, 120, 220)  # requests with a log record that is no event
TOPIC = "otlp_metrics"
EVENT_WAYS = ("otlp_grpc/protobuf", "otlp_http/protobuf")
WAYS = {"otlp_grpc/protobuf": "otlp/airan", "otlp_http/protobuf": "otlphttp/airan", "kafka/otlp_proto": "kafka/others"}


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
  kafka_in: [{{brokers: "{kafka}", topic: {TOPIC}, format: otlp_proto, group: airan}}]
processor: {{commit: {{interval: 1s}}}}
agent: {{host: {{enabled: false}}, links: {{enabled: false}}}}
"""
        )
        retry = {"enabled": True, "initial_interval": "200ms", "max_interval": "1s", "max_elapsed_time": 0}
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


def points(ledger):
    """(metric, time in microseconds, node, attributes, value) of every number in the ledger; of histograms the value is (count, sum)."""
    found = []
    for line in ledger.read_text().splitlines():
        for resource in json.loads(line)["resourceMetrics"]:
            attributes = {a["key"]: a["value"].get("stringValue") for a in resource.get("resource", {}).get("attributes", [])}
            for scope in resource["scopeMetrics"]:
                for metric in scope["metrics"]:
                    for kind in ("gauge", "sum", "histogram", "exponentialHistogram", "summary"):
                        for point in metric.get(kind, {}).get("dataPoints", []):
                            own = {a["key"]: next(iter(a["value"].values())) for a in point.get("attributes", [])}
                            if kind in ("gauge", "sum"):
                                value = float(point["asDouble"] if "asDouble" in point else point["asInt"])
                            else:
                                value = (int(point["count"]), float(point.get("sum", 0)))
                            at = int(point["timeUnixNano"]) // 1000
                            found.append((metric["name"], at, attributes.get("host.name"), own, value))
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


def compare(site):
    ledger = points(site.ledger)
    of = lambda name, **labels: [p for p in ledger if p[0] == name and all(p[3].get(k) == v for k, v in labels.items())]
    for source in WAYS:
        rows = site.query(f"SELECT name, CAST(ts AS BIGINT) AS ts, node, value FROM sample WHERE source = '{source}' "
                          "AND name IN ('test.level', 'test.turns')")
        expect(
            f"{source}: samples",
            [(r["name"], r["ts"], r["node"], r["value"]) for r in rows],
            [(p[0], p[1], p[2], p[4]) for p in of("test.level") + of("test.turns")],
        )
        rows = site.query(f"SELECT device, CAST(ts AS BIGINT) AS ts, utilization FROM accelerator WHERE source = '{source}'")
        expect(
            f"{source}: a column of accelerator",
            [(r["device"], r["ts"], r["utilization"]) for r in rows],
            [(p[3]["hw.id"], p[1], p[4]) for p in of("hw.gpu.utilization")],
        )
        rows = site.query(f"SELECT CAST(ts AS BIGINT) AS ts, load1 FROM host WHERE source = '{source}' AND load1 IS NOT NULL")
        expect(
            f"{source}: this host's load",
            [(r["ts"], r["load1"]) for r in rows],
            [(p[1], p[4]) for p in of("system.cpu.load_average.1m")],
        )
        rows = site.query(f"SELECT interface, CAST(ts AS BIGINT) AS ts, rx_bytes FROM link WHERE source = '{source}' "
                          "AND rx_bytes IS NOT NULL")
        expect(
            f"{source}: this host's links",
            [(r["interface"], r["ts"], r["rx_bytes"]) for r in rows],
            [(p[3]["device"], p[1], p[4]) for p in of("system.network.io", direction="receive")],
        )
        rows = site.query("SELECT name, CAST(ts AS BIGINT) AS ts, histogram_count(histogram) AS count, histogram_sum(histogram) AS sum "
                          f"FROM sample WHERE source = '{source}' AND name IN ('test.spread', 'test.exponential')")
        expect(
            f"{source}: histograms, explicit and exponential",
            [(r["name"], r["ts"], (r["count"], r["sum"])) for r in rows],
            [(p[0], p[1], p[4]) for p in of("test.spread") + of("test.exponential")],
        )


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
            fed = 5 * REQUESTS
            logs = [own["otelcol_exporter_sent_log_records", WAYS[way]] for way in EVENT_WAYS]
            events = min(logs) >= REQUESTS + len(LOGS)
            return counts if waiting == 0 and events and counts[0] > fed and max(counts) - min(counts) < 400 else None

        until("the Collector's queues are empty", sent)
        site.end(sender, "the Collector")
        log = (site.folder / "collector.log").read_text()
        assert "Exporting failed. Dropping data" not in log, "the Collector dropped points"
        partial = [line for line in log.splitlines() if "artial success" in line]
        assert partial and all("not_an_event" in line for line in partial), partial or "no word about logs that are no events"
        assert "Will retry" in log, "the Collector never had to retry: the kills show nothing"
        ledger = points(site.ledger)
        print(f"     the Collector's ledger has {len(ledger)} points")
        last = max(p[1] for p in ledger if p[0] == "system.cpu.load_average.1m")
        for source in WAYS:
            until(
                f"{source}: the last points are in the lake",
                lambda: site.query(f"SELECT count(*) AS n FROM host WHERE source = '{source}' AND CAST(ts AS BIGINT) = {last}")[0]["n"],
            )
        last = max(at for _, at, _ in events(site.logs)[0])
        for source in EVENT_WAYS:
            until(
                f"{source}: the last event is in the lake",
                lambda: site.query(f"SELECT count(*) AS n FROM event WHERE source = '{source}' AND CAST(ts AS BIGINT) = {last}")[0]["n"],
            )
        compare(site)
        compare_events(site)
        twins = site.query("SELECT count(*) - count(DISTINCT batch || ':' || seq) AS twins FROM sample")
        assert twins[0]["twins"] == 0, twins
        check_sums(f"http://127.0.0.1:{site.admin}", "doors", "shards")
        site.end(up, "airan")
        site.check_lake()


main()
