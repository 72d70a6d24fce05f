#!/usr/bin/env python3
"""Checks that every metric which a rule or a dashboard names exists: on /metrics of a running airan, or declared by a pipeline.

usage: monitoring.py METRICS.TXT     (the text of /metrics)
"""
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAME = re.compile(r"\b(?:airan|process)_[a-z0-9_]+")
# These have series while topics of others are read, or once one was paused; the airan that is looked at here reads none. Their names and
# values are looked at where a broker is: kafka_in_is_paused_while_the_bus_takes_nothing in tests/whole/kafka_in.rs.
WITH_TOPICS = {"airan_gateway_kafka_lag_messages", "airan_gateway_kafka_paused"}
# What Prometheus adds to a histogram's name.
SUFFIX = re.compile(r"_(bucket|sum|count)$")


def there(metrics):
    """Names with a type: counters, gauges and histograms as they are declared."""
    names = WITH_TOPICS | set(re.findall(r"^# TYPE (\S+) ", pathlib.Path(metrics).read_text(), re.M))
    for pipeline in ROOT.glob("pipelines/*/pipeline.yaml"):
        names |= set(re.findall(r"^\s+name: (airan_\w+)", pipeline.read_text(), re.M))
    return names


def asked():
    """(where, expression) of every rule and panel."""
    rules = (ROOT / "deploy/prometheus/airan.rules.yaml").read_text()
    # Expressions only: annotations name commands.
    for block in re.findall(r"^\s+expr: (?:\|\n((?:\s{10,}.*\n)+)|(.*)\n)", rules, re.M):
        yield "airan.rules.yaml", block[0] or block[1]
    for path in sorted((ROOT / "deploy/grafana").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{path.name}: {panel['title']}", target["expr"]


def main():
    known = there(sys.argv[1])
    missing, count = [], 0
    for where, expression in asked():
        count += 1
        # Recorded names have colons: their parts are no metrics.
        for name in NAME.findall(re.sub(r"[\w]*:[\w:]+", "", expression)):
            if name not in known and SUFFIX.sub("", name) not in known:
                missing.append(f"{where}: {name}")
    if missing or count < 60:
        sys.exit("\n".join(["metrics that do not exist:", *missing]) if missing else f"only {count} expressions found")
    print(f"ok   {count} expressions name metrics that exist")


if __name__ == "__main__":
    main()
