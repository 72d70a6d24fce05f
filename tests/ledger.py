"""What a Collector's file exporter wrote, as the rows that it must be in the lake: every data point, to its column or to a row of `sample`.

Where a metric goes is written here once more, apart from the catalog, so that a line lost there is seen.
"""
import collections
import json
import math

# (metric, value of the attribute that tells its series apart): (table, column). What is not here is a row of `sample`.
COLUMNS = {
    ("hw.gpu.utilization", None): ("accelerator", "utilization"),
    ("system.cpu.logical.count", None): ("host", "cpus"),
    **{
        ("system.cpu.time", state): ("host", f"cpu_{column}_seconds")
        for state, column in [
            ("user", "user"), ("nice", "nice"), ("system", "system"), ("idle", "idle"), ("wait", "iowait"), ("interrupt", "irq"),
            ("softirq", "softirq"), ("steal", "steal"),
        ]
    },
    **{(f"system.cpu.load_average.{minutes}m", None): ("host", f"load{minutes}") for minutes in (1, 5, 15)},
    **{
        ("system.memory.usage", state): ("host", f"memory_{column}_bytes")
        for state, column in [("used", "used"), ("free", "free"), ("cached", "cached"), ("buffered", "buffers")]
    },
    **{
        (f"system.network.{metric}", direction): ("link", f"{way}_{column}")
        for metric, column in [("io", "bytes"), ("packets", "packets"), ("errors", "errors"), ("dropped", "drops")]
        for direction, way in [("receive", "rx"), ("transmit", "tx")]
    },
}
# Which attribute says whose a row is, and in which column it stands.
ENTITY = {"accelerator": ("hw.id", "device"), "link": ("device", "interface"), "host": (None, None)}
# Columns that say where a row comes from: all others are values.
ORIGIN = {"ts", "received_at", "region", "site", "node", "start_ts", "clock", "source", "batch", "seq", "attributes", "date", "at"}
# `AggregationTemporality` of OTLP: a value since the one before.
DELTA = 1
# The zero bucket of an exponential histogram is as narrow as floats have room for.
NARROW = 1e-300


def micros(nanos):
    """Microseconds of a time as OTLP's JSON has it; None where there is none."""
    return int(nanos) // 1000 if int(nanos) else None


def explicit_buckets(point):
    """(upper bound, count) of each bucket that holds something."""
    bounds = [*map(float, point.get("explicitBounds", [])), math.inf]
    return tuple((bound, int(count)) for bound, count in zip(bounds, point["bucketCounts"], strict=True) if int(count))


def exponential_buckets(point):
    """The same of an exponential histogram without negative values: bucket i ends at 2^((i + 1) / 2^scale)."""
    assert not point.get("negative", {}).get("bucketCounts"), point
    found = [(0.0, int(point.get("zeroCount", 0)))] if int(point.get("zeroCount", 0)) else []
    positive = point.get("positive", {})
    for index, count in enumerate(positive.get("bucketCounts", []), positive.get("offset", 0)):
        if int(count):
            found.append((2.0 ** ((index + 1) / 2 ** point["scale"]), int(count)))
    return rounded(found)


def rounded(buckets):
    """Bounds to 12 digits: powers of roots are computed in more ways than one."""
    return tuple((0.0 if abs(bound) < NARROW else float(f"{bound:.12g}"), count) for bound, count in buckets)


def stored_buckets(histogram):
    """The same of a histogram in the lake."""
    bounds = [*histogram["bounds"], math.inf]
    return rounded((bound, count) for bound, count in zip(bounds, histogram["counts"], strict=True) if count)


class Ledger:
    """`cells`: (table, node, entity, time, column, value) of what has columns; `samples`: rows of `sample`. Times in microseconds; the node
    is None where the sender names none."""

    def __init__(self, text, refused):
        self.points, self.refused = 0, 0
        self.cells, self.samples = collections.Counter(), collections.Counter()
        for line in text.splitlines():
            for resource in json.loads(line)["resourceMetrics"]:
                shared = {a["key"]: a["value"]["stringValue"] for a in resource.get("resource", {}).get("attributes", [])}
                for scope in resource["scopeMetrics"]:
                    sums = collections.defaultdict(float)
                    named = scope.get("scope", {})
                    labels = {**shared, **{f"otel.scope.{key}": named[key] for key in ("name", "version") if key in named}}
                    for metric in scope["metrics"]:
                        for kind, point in each_point(metric):
                            self.points += 1
                            if metric["name"] == refused:
                                self.refused += 1
                                continue
                            self.take(metric, kind, point, shared.get("host.name"), labels, sums)
                    self.cells.update((*key, value) for key, value in sums.items())

    def take(self, metric, kind, point, node, shared, sums):
        own = {a["key"]: next(iter(a["value"].values())) for a in point.get("attributes", [])}
        name, at = metric["name"], micros(point["timeUnixNano"])
        apart = own.get("state") if name != "system.network.connections" else None
        place = COLUMNS.get((name, apart or own.get("direction")))
        if place:
            table, column = place
            # A host's CPUs are one row.
            sums[table, node, own.get(ENTITY[table][0]), at, column] += number(point)
            return

        def sample(name, type_, value, buckets=None, **more):
            if metric[kind].get("aggregationTemporality") == DELTA:
                more["airan.temporality"] = "delta"
            labels = tuple(sorted({**shared, **own, **more}.items()))
            self.samples[name, node, at, micros(point.get("startTimeUnixNano", 0)), type_, value, buckets, labels] += 1

        if kind in ("gauge", "sum"):
            sample(name, "counter" if metric[kind].get("isMonotonic") else "gauge", number(point))
        elif kind == "summary":
            sample(f"{name}_sum", "summary", float(point.get("sum", 0)))
            sample(f"{name}_count", "summary", float(point.get("count", 0)))
            for one in point["quantileValues"]:
                sample(name, "summary", float(one.get("value", 0)), quantile=str(one["quantile"]))
        else:
            buckets = exponential_buckets(point) if kind == "exponentialHistogram" else rounded(explicit_buckets(point))
            sample(name, "histogram", (int(point["count"]), float(point.get("sum", 0))), buckets)

    def named(self, node):
        """Cells and samples with a node in place of none."""
        name = lambda key, at: (*key[:at], key[at] or node, *key[at + 1:])
        return (collections.Counter({name(key, 1): n for key, n in self.cells.items()}),
                collections.Counter({name(key, 1): n for key, n in self.samples.items()}))


def each_point(metric):
    for kind in ("gauge", "sum", "histogram", "exponentialHistogram", "summary"):
        for point in metric.get(kind, {}).get("dataPoints", []):
            yield kind, point


def number(point):
    return float(point["asDouble"] if "asDouble" in point else point["asInt"])


def stored_cells(table, rows):
    """Cells of the rows of a table, and how many rows they would be, were those of one entity and instant in one."""
    entity = ENTITY[table][1]
    cells = collections.Counter()
    for row in rows:
        for column, value in row.items():
            if value is None or column in ORIGIN or column == entity or "_increase" in column:
                continue
            cells[table, row["node"], row.get(entity), row["at"], column, value] += 1
    return cells, len({key[:4] for key in cells})


def stored_samples(rows):
    found = collections.Counter()
    for row in rows:
        assert row["text"] is None, row
        histogram = row["histogram"]
        value = (histogram["count"], histogram["sum"]) if histogram else row["value"]
        buckets = stored_buckets(histogram) if histogram else None
        labels = tuple(sorted((row["attributes"] or {}).items()))
        found[row["name"], row["node"], row["at"], row["start"], row["type"], value, buckets, labels] += 1
    return found
