#!/usr/bin/env python3
"""Seeds for the fuzz targets of crates/airan-decode/fuzz: other systems' files as they are, and the same in the formats that no file has.

usage: fuzz_seeds.py SAMPLES CORPUS     (a folder for each target is made in CORPUS)

OTLP in protobuf is made of the samples in JSON, remote write 1.0 and 2.0 of the text samples, Arrow of a few rows by pyarrow.
Protobuf is written here by hand: field numbers are those of metrics.proto and of Prometheus' types.proto.
"""
import io
import json
import pathlib
import struct
import sys

import pyarrow as pa
from prometheus_client import parser

ROOT = pathlib.Path(__file__).resolve().parent.parent
LARGEST = 64 << 10


def varint(number):
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out + bytes([number]))


def field(number, value):
    """A field by the type of its value: bytes and text, whole number as varint, float as double."""
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    return varint(number << 3) + varint(int(value))


def fixed(number, value):
    return varint(number << 3 | 1) + struct.pack("<Q", int(value) & (1 << 64) - 1)


def zigzag(value):
    return value << 1 ^ value >> 63


def any_value(value):
    for name, number, of in [("stringValue", 1, str), ("boolValue", 2, int), ("intValue", 3, int), ("doubleValue", 4, float)]:
        if name in value:
            return field(number, of(value[name]))
    for name, number in [("arrayValue", 5), ("kvlistValue", 6)]:
        if name in value:
            write = any_value if name == "arrayValue" else pair
            return field(number, b"".join(field(1, write(one)) for one in value[name].get("values", [])))
    return b""


def pair(attribute):
    return field(1, attribute.get("key", "")) + field(2, any_value(attribute.get("value", {})))


def pairs(number, attributes):
    return b"".join(field(number, pair(one)) for one in attributes or [])


def buckets(value):
    counts = b"".join(varint(int(count)) for count in value.get("bucketCounts", []))
    return field(1, zigzag(int(value.get("offset", 0)))) + field(2, counts)


def point(kind, value):
    times = fixed(2, value.get("startTimeUnixNano", 0)) + fixed(3, value.get("timeUnixNano", 0))
    exemplar = b"".join(
        [fixed(2, 1), field(3, 1.0), field(5, b"\x4b" * 16), pairs(7, [{"key": "k", "value": {"intValue": 1}}])]
    )
    if kind in ("gauge", "sum"):
        number = field(4, float(value["asDouble"])) if "asDouble" in value else fixed(6, int(value.get("asInt", 0)))
        return times + number + pairs(7, value.get("attributes")) + field(5, exemplar)
    if kind == "summary":
        quantiles = (field(1, float(q.get("quantile", 0))) + field(2, float(q.get("value", 0))) for q in value.get("quantileValues", []))
        body = b"".join(field(6, quantile) for quantile in quantiles)
        return times + fixed(4, value.get("count", 0)) + field(5, float(value.get("sum", 0))) + body + pairs(7, value.get("attributes"))
    body = times + fixed(4, value.get("count", 0)) + field(5, float(value.get("sum", 0)))
    if kind == "histogram":
        counts = b"".join(struct.pack("<Q", int(count)) for count in value.get("bucketCounts", []))
        bounds = b"".join(struct.pack("<d", float(bound)) for bound in value.get("explicitBounds", []))
        return body + field(6, counts) + field(7, bounds) + field(8, exemplar) + pairs(9, value.get("attributes"))
    body += field(6, zigzag(int(value.get("scale", 0)))) + fixed(7, value.get("zeroCount", 0))
    body += field(8, buckets(value.get("positive", {}))) + field(9, buckets(value.get("negative", {})))
    return body + pairs(1, value.get("attributes")) + field(11, exemplar)


KINDS = {"gauge": 5, "sum": 7, "histogram": 9, "exponentialHistogram": 10, "summary": 11}


def metric(value):
    body = field(1, value.get("name", ""))
    for kind, number in KINDS.items():
        if kind in value:
            data = b"".join(field(1, point(kind, one)) for one in value[kind].get("dataPoints", []))
            data += field(2, int(value[kind].get("aggregationTemporality", 0)))
            body += field(number, data + field(3, bool(value[kind].get("isMonotonic"))))
    return body


SEVERITIES = {"SEVERITY_NUMBER_WARN": 13}


def record(value):
    severity = value.get("severityNumber", 0)
    body = fixed(1, value.get("timeUnixNano", 0)) + field(2, SEVERITIES.get(severity, severity))
    body += field(3, value.get("severityText", "")) + field(5, any_value(value.get("body", {})))
    body += pairs(6, value.get("attributes")) + field(9, b"\x4b" * 16) + field(10, b"\x4b" * 8)
    return body + fixed(11, value.get("observedTimeUnixNano", 0)) + field(12, value.get("eventName", ""))


def otlp(request, signal="Metrics", items="metrics", write=metric):
    out = b""
    for resource in request.get(f"resource{signal}", []):
        body = field(1, pairs(1, resource.get("resource", {}).get("attributes")))
        for scope in resource.get(f"scope{signal}", []):
            of = scope.get("scope", {})
            named = field(1, of.get("name", "")) + field(2, of.get("version", "")) + pairs(3, of.get("attributes"))
            body += field(2, field(1, named) + b"".join(field(2, write(one)) for one in scope.get(items, [])))
        out += field(1, body)
    return out


def with_events(request):
    """The same logs, and each record again as an event: named by the field, and by the attribute with a body of fields."""
    for resource in request["resourceLogs"]:
        for scope in resource["scopeLogs"]:
            for one in list(scope["logRecords"]):
                scope["logRecords"].append({**one, "eventName": "shown", "severityNumber": "SEVERITY_NUMBER_WARN"})
                named = {"key": "event.name", "value": {"stringValue": "told"}}
                code = {"key": "code", "value": {"intValue": "7"}}
                fields = {"kvlistValue": {"values": [code, {"key": "imsi", "value": {"stringValue": "1"}}]}}
                scope["logRecords"].append({**one, "attributes": [*one["attributes"], named], "body": fields})
    return request


TYPES = {"counter": 1, "gauge": 2, "histogram": 3, "summary": 5, "info": 6, "stateset": 7}


def native(fields_at):
    """A native histogram; `fields_at` is the field it stands in."""
    span = field(1, zigzag(-2)) + field(2, 2)
    body = field(1, 5) + field(3, 7.5) + field(4, zigzag(2)) + field(5, 1e-128) + field(6, 1)
    body += field(11, span) + field(12, varint(zigzag(1)) + varint(zigzag(2))) + field(15, 1_795_514_400_000)
    custom = field(1, 3) + field(3, 2.0) + field(4, zigzag(-53)) + field(11, field(1, 0) + field(2, 2))
    custom += field(12, varint(zigzag(1)) + varint(zigzag(1))) + field(16, struct.pack("<dd", 0.5, 1.0)) + field(15, 1_795_514_400_000)
    return field(fields_at, body) + field(fields_at, custom)


def remote_write(families):
    """The same series as a message of 1.0 and of 2.0."""
    first, second, symbols = b"", b"", {"": 0}
    ref = lambda text: symbols.setdefault(text, len(symbols))
    for family in families:
        first += field(3, field(1, TYPES.get(family.type, 0)) + field(2, family.name))
        for sample in family.samples[:40]:
            labels = sorted({"__name__": sample.name, "instance": "node-1:9100", **sample.labels}.items())
            taken = field(2, field(1, float(sample.value)) + field(2, 1_795_514_400_000))
            exemplar = field(1, field(1, "trace_id") + field(2, "4b")) + field(2, 1.0) + field(3, 1)
            named = b"".join(field(1, field(1, name) + field(2, value)) for name, value in labels)
            first += field(1, named + taken + field(3, exemplar))
            refs = b"".join(varint(ref(name)) + varint(ref(value)) for name, value in labels)
            described = field(1, TYPES.get(family.type, 0)) + field(3, ref(family.documentation))
            second += field(5, field(1, refs) + taken + field(5, described) + field(6, 1_795_514_000_000))
    first += field(1, field(1, field(1, "__name__") + field(2, "native")) + native(4))
    second += field(5, field(1, varint(ref("__name__")) + varint(ref("native"))) + native(3))
    return first, b"".join(field(4, symbol) for symbol in symbols) + second


def arrow_stream(options=None):
    table = pa.table(
        {
            "ts": pa.array([1_795_514_400_000_000] * 3, pa.timestamp("us", tz="UTC")),
            "node": pa.array(["a", "b", None]),
            "device": pa.array(["GPU-0", "GPU-1", "GPU-0"]).dictionary_encode(),
            "utilization": [0.25, None, 0.5],
            "attributes": pa.array([[("k", "v")], [], None], pa.map_(pa.string(), pa.string())),
        }
    )
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema, options=options) as writer:
        writer.write_table(table)
    return out.getvalue()


def sections(capture, title):
    """The tables of a capture under headings with this title: a heading is two lines between two of `#`."""
    lines, found = capture.splitlines(keepends=True), []
    for at, line in enumerate(lines):
        if title in line and line.startswith("#"):
            body = []
            for following in lines[at + 3:]:
                if following.startswith("####"):
                    break
                body.append(following)
            found.append("".join(body).strip() + "\n")
    return found


def main():
    samples, corpus = map(pathlib.Path, sys.argv[1:])
    count = 0

    def seed(target, name, body):
        nonlocal count
        (corpus / target).mkdir(parents=True, exist_ok=True)
        if len(body) <= LARGEST:
            (corpus / target / f"seed-{name}").write_bytes(body)
            count += 1

    for path in sorted(samples.glob("prom-otlp/otlp*metric*.json")) + sorted(samples.glob("prom-otlp/otlp_rust*.json")):
        seed("otlp_json", path.name, path.read_bytes())
        seed("otlp_protobuf", path.name, otlp(json.loads(path.read_text())))
    for path in sorted(samples.glob("prom-otlp/otlp*logs*.json")):
        seed("otlp_logs_json", path.name, path.read_bytes())
        request = with_events(json.loads(path.read_text()))
        seed("otlp_logs_json", f"events-{path.name}", json.dumps(request, indent=1).encode())
        seed("otlp_logs_protobuf", path.name, otlp(request, "Logs", "logRecords", record))
    texts = [p for suffix in ("*.prom", "*.metrics") for p in samples.rglob(suffix)]
    texts += (ROOT / "crates/airan-decode/fixtures").glob("*.prom")
    for path in sorted(texts):
        body = path.read_bytes()
        seed("prometheus_text", path.name, body[:LARGEST].rpartition(b"\n")[0] + b"\n")
        families = list(parser.text_string_to_metric_families(path.read_text()))
        for target, message in zip(("remote_write_1", "remote_write_2"), remote_write(families[:60])):
            seed(target, path.name, message)
    strict = [p for p in samples.glob("prom-otlp/openmetrics-parser/*/metrics")] + list(samples.glob("prom-otlp/*om*.txt"))
    for path in strict:
        seed("openmetrics", f"{path.parent.name}-{path.name}", path.read_bytes())
    for path in ROOT.glob("pipelines/*/input.ndjson"):
        lines = path.read_bytes().splitlines(keepends=True)
        seed("ndjson", path.parent.name, b"".join(lines[:20]))
    for path in samples.glob("ran-gnb/*.jsonl"):
        seed("ndjson", path.name, path.read_bytes())
    for path in samples.glob("accel-nvidia/nvidia-smi_*.xml"):
        seed("nvidia_smi_xml", path.name, path.read_bytes())
    for path in samples.glob("accel-nvidia/linux-*.txt"):
        for number, table in enumerate(sections(path.read_text(), "query-gpu (csv")):
            seed("nvidia_smi_csv", f"{number}-{path.name}", table.encode())
    for path in samples.glob("accel-other/rocm-smi_*.json"):
        seed("rocm_smi", path.name, path.read_bytes())
    for name, compression in [("plain", None), ("lz4", "lz4"), ("zstd", "zstd")]:
        seed("arrow_ipc", name, arrow_stream(pa.ipc.IpcWriteOptions(compression=compression)))
    print(f"{count} seeds in {corpus}")


main()
