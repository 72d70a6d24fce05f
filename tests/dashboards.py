#!/usr/bin/env python3
"""Asks a Prometheus what the dashboards of deploy/grafana ask it, and fails where a panel would stay empty.

Every target of every panel goes through /api/v1/query_range, as Grafana sends it, with the variables resolved by their own queries.
What has no data yet is asked again until the deadline.

usage: dashboards.py PROMETHEUS-URL [DEADLINE-SECONDS]
"""
import json
import math
import pathlib
import sys
import time
import urllib.parse

from running import get

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "deploy/grafana"
# What the panels look back, and the distance of their points.
SPAN, STEP = 600, 5

# Panels that may be empty where nothing is wrong, by dashboard and title, each with its reason.
MAY_BE_EMPTY = {
    ("airan-pipeline", "behind in others' Kafka topics"): "the demo reads no topics of others",
}


class Prometheus:
    def __init__(self, url):
        self.url = url

    def ask(self, path, **parameters):
        return json.loads(get(f"{self.url}{path}?{urllib.parse.urlencode(parameters)}", 30))["data"]

    def has(self, expression):
        """Series and points that are numbers, of the last SPAN seconds."""
        now = time.time()
        found = self.ask("/api/v1/query_range", query=expression, start=now - SPAN, end=now, step=STEP)["result"]
        points = [sum(1 for _, value in series["values"] if math.isfinite(float(value))) for series in found]
        return sum(1 for count in points if count), sum(points)

    def label_values(self, query, variables):
        """What `label_values(SELECTOR, LABEL)` of a variable gives."""
        selector, label = query.removeprefix("label_values(").removesuffix(")").rsplit(", ", 1)
        return self.ask(f"/api/v1/label/{label}/values", **{"match[]": resolve(selector, variables)})


def resolve(text, variables):
    for name, value in variables.items():
        text = text.replace(f"${name}", value)
    if "$" in text:
        sys.exit(f"a variable that no dashboard declares: {text}")
    return text


def variables_of(dashboard, prometheus):
    """Values of the variables with all chosen, and those of them that have nothing to choose from."""
    values, empty = {}, []
    for variable in dashboard["templating"]["list"]:
        if variable["type"] != "query":
            continue
        if not prometheus.label_values(variable["query"]["query"], values):
            empty.append(f"{dashboard['uid']}: variable {variable['name']}")
        values[variable["name"]] = variable["allValue"]
    return values, empty


def look(prometheus):
    """(panels with data, what has none)."""
    full, empty = {}, []
    for path in sorted(FOLDER.glob("*.json")):
        dashboard = json.loads(path.read_text())
        variables, without = variables_of(dashboard, prometheus)
        empty += without
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                of = (dashboard["uid"], panel["title"])
                series, points = prometheus.has(resolve(target["expr"], variables))
                if points:
                    full.setdefault(of, []).append((series, points))
                elif of not in MAY_BE_EMPTY:
                    empty.append(f"{of[0]}: {of[1]}: {target['expr']}")
    return full, empty


def main():
    prometheus = Prometheus(sys.argv[1])
    deadline = time.monotonic() + float(sys.argv[2] if len(sys.argv) > 2 else 300)
    while True:
        full, empty = look(prometheus)
        if not empty:
            break
        if time.monotonic() > deadline:
            sys.exit("\n".join(["without data:", *empty]))
        time.sleep(2)
    if len(full) < 50:
        sys.exit(f"only {len(full)} panels found in {FOLDER}")
    points = sum(points for targets in full.values() for _, points in targets)
    print(f"ok   {len(full)} panels of {len({uid for uid, _ in full})} dashboards have data: {points} points")


main()
