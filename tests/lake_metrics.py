#!/usr/bin/env python3
"""Whether the metrics of pipelines, as a Prometheus holds them, are the numbers of the lake.

For every pipeline of pipelines/ and every metric it declares: a gauge is the newest window's value and is not there where that is
null; a counter is the sum of its column over all windows. Series are compared by all their labels, in both directions. Windows
close while we look, so a pipeline is asked again until all its series agree at once, with a deadline; every pipeline must have rows.

usage: lake_metrics.py AIRAN CONFIG DATA PROMETHEUS-URL     (needs PyYAML)
"""
import json
import math
import pathlib
import subprocess
import sys
import time
import urllib.parse

import yaml

from running import get, until

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "pipelines"
# What Prometheus adds by itself.
SCRAPE_LABELS = {"__name__", "job", "instance"}


def windows(lake, pipeline):
    """Rows of the newest revisions of a pipeline's table, oldest window first."""
    columns = {label for metric in pipeline["metrics"] for label in metric["labels"]}
    columns |= {metric["column"] for metric in pipeline["metrics"]}
    chosen = ", ".join(sorted(columns))
    sql = f"SELECT CAST(window_start AS BIGINT) AS at, {chosen} FROM {pipeline['table']}_latest ORDER BY window_start"
    done = subprocess.run([*lake, sql], check=True, capture_output=True, text=True, timeout=60)
    return json.loads(done.stdout)


def shown(prometheus, name):
    """Value by labels, of each series that Prometheus has now."""
    answer = json.loads(get(f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': name, 'time': time.time()})}", 30))
    found = {}
    for series in answer["data"]["result"]:
        labels = frozenset((label, value) for label, value in series["metric"].items() if label not in SCRAPE_LABELS)
        found[labels] = float(series["value"][1])
    return found


def expected(metric, rows):
    """(value by labels that must be there, value by labels that may be): of the rows of all windows."""
    values, newest, at = {}, {}, {}
    for row in rows:
        labels = frozenset((label, str(row[label])) for label in metric["labels"] if row.get(label) not in (None, ""))
        value = row.get(metric["column"])
        if metric["type"] == "counter":
            if value is not None:
                values[labels] = values.get(labels, 0.0) + value
        else:
            newest[labels], at[labels] = value, row["at"]
    if metric["type"] == "counter":
        return values, values
    last = max(at.values())
    values = {labels: value for labels, value in newest.items() if value is not None}
    # An entity without a row in the newest window is shown until it is stale.
    return {labels: value for labels, value in values.items() if at[labels] == last}, values


def compare(lake, prometheus, pipeline):
    """How many series agree. Fails with those that do not."""
    rows = windows(lake, pipeline)
    assert rows, f"{pipeline['table']} has no rows"
    count, empty = 0, []
    for metric in pipeline["metrics"]:
        must, may = expected(metric, rows)
        theirs = shown(prometheus, metric["name"])
        strange = {labels: value for labels, value in theirs.items()
                   if labels not in may or not math.isclose(value, may[labels], rel_tol=1e-12, abs_tol=0)}
        assert not strange, f"{metric['name']}: shown {strange}, in the lake {[may.get(labels) for labels in strange]}"
        assert must.keys() <= theirs.keys(), f"{metric['name']}: not shown: {must.keys() - theirs.keys()}"
        count += len(theirs)
        if not theirs:
            empty.append(metric["name"])
    return count, len(rows), empty


def main(airan, config, data, prometheus):
    lake = [airan, "query", "--config", config, "--data", data, "--format", "json"]
    pipelines = [yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*/pipeline.yaml"))]
    assert len(pipelines) >= 10, f"only {len(pipelines)} pipelines in {FOLDER}"
    for pipeline in pipelines:
        count, rows, empty = until(
            f"what Prometheus has of {pipeline['name']} is what the lake has", lambda: compare(lake, prometheus, pipeline)
        )
        print(f"     {count} series of {len(pipeline['metrics'])} metrics, {rows} windows' rows"
              + (f"; without a value here: {', '.join(empty)}" if empty else ""))
        assert count, f"no series of {pipeline['name']}"


if __name__ == "__main__":
    main(*sys.argv[1:])
