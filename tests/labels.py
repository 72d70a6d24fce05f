#!/usr/bin/env python3
"""Checks the labels that rules and dashboards name, against those that the series of a running airan have.

Looked at are selectors, `by (…)` and `on (…)`, what annotations of alerts show as `$labels.…`, and the legends of panels. A label must be one
of every metric that it is asked of: on /metrics, or declared by the metric's pipeline (a demo has no `ru`). Then each place is given a label
that does not exist, one at a time, and the check must notice.

usage: labels.py METRICS.TXT     (the text of /metrics of the demo site; needs PyYAML)
"""
import collections
import json
import pathlib
import re
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
# What Prometheus adds to whatever it scrapes.
ADDED = {"job", "instance"}
METRIC = re.compile(r"\b(?:(?:airan|process)_[a-z0-9_]+|up|[a-z_0-9]+:[a-z_0-9]+:[a-z_0-9]+)\b")
LISTED = re.compile(r"\b(by|on|ignoring|without|group_left|group_right) *\(([^)]*)\)")
AGGREGATED = re.compile(r"\b(?:sum|min|max|avg|count|topk|quantile)\b *(?:by *\(([^)]*)\))? *\(")
NAMES_LABEL = re.compile(r'([a-zA-Z_]+) *(?:=~|!~|!=|=) *"')
MADE = re.compile(r'label_replace\(.*?, "(\w+)", "', re.S)
# These have series while topics of others are read, or once one was paused: their labels as crates/airan-gateway/src/metrics.rs has them.
WITH_TOPICS = {"airan_gateway_kafka_lag_messages": {"topic", "partition"}, "airan_gateway_kafka_paused": {"topic"}}
WRONG = "no_such_label"


def closing(text, at):
    """Where the bracket that opens at `at` closes."""
    depth, quoted = 0, False
    for place in range(at, len(text)):
        quoted ^= text[place] == '"'
        depth += 0 if quoted else (text[place] in "({") - (text[place] in ")}")
        if depth == 0:
            return place
    sys.exit(f"brackets do not close: {text}")


def split(names):
    return {name.strip() for name in names.split(",") if name.strip()}


def bare(expression):
    """The expression without what stands in braces, brackets and lists of labels, so that its words are metrics and functions."""
    return LISTED.sub(" ", re.sub(r'\{[^}]*\}|\[[^]]*\]|"[^"]*"', " ", expression))


class Known:
    """Labels by metric."""

    def __init__(self, metrics):
        self.labels = collections.defaultdict(set, WITH_TOPICS)
        for name, labels in re.findall(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+", metrics, re.M):
            self.labels[name] |= set(NAMES_LABEL.findall(labels))
        for path in ROOT.glob("pipelines/*/pipeline.yaml"):
            for metric in yaml.safe_load(path.read_text())["metrics"]:
                real = self.labels.get(metric["name"], set())
                if not real <= set(metric["labels"]):
                    sys.exit(f"{metric['name']} has labels that its pipeline does not declare: {real - set(metric['labels'])}")
                self.labels[metric["name"]] |= set(metric["labels"])
        self.labels["up"] = set()

    def of(self, metric):
        """Its labels; None where it has no series to tell."""
        return self.labels[metric] | ADDED if metric in self.labels else None


def metrics_in(expression):
    return set(METRIC.findall(bare(expression)))


def output(expression, known):
    """Labels that series of the result can have; None where a metric has no series."""
    found, rest = set(MADE.findall(expression)), expression
    while aggregation := AGGREGATED.search(rest):
        found |= split(aggregation.group(1) or "")
        end = closing(rest, aggregation.end() - 1)
        rest = rest[:aggregation.start()] + " 1 " + rest[end + 1:]
    of = [known.of(metric) for metric in metrics_in(rest)]
    return None if None in of else found.union(*of)


def problems(expression, shown, known):
    """What is wrong with the labels in an expression and in the text that shows its result."""
    def lacking(names, metrics):
        for metric in sorted(metrics):
            labels = known.of(metric)
            yield from (f"{metric} has no label {name}" for name in sorted(names) if labels is not None and name not in labels)

    for found in re.finditer(r"([a-z_0-9:]+)\{", expression):
        within = expression[found.end():closing(expression, found.end() - 1)]
        yield from lacking(set(NAMES_LABEL.findall(within)), {found.group(1)})
    for found in LISTED.finditer(expression):
        whole = expression
        if found.group(1) == "by":
            opening = expression.index("(", found.end())
            whole = expression[opening:closing(expression, opening) + 1]
        yield from lacking(split(found.group(2)), metrics_in(whole))
    result = output(expression, known)
    if result is not None:
        yield from (f"the result has no label {name}" for name in sorted(shown_labels(shown) - result))


def shown_labels(text):
    return set(re.findall(r"\$labels\.(\w+)", text)) | set(re.findall(r"\{\{ *(\w+) *\}\}", text))


def asked(known):
    """(where, expression, text that shows its result) of every rule and panel; labels of what rules record are added to `known`."""
    for group in yaml.safe_load((ROOT / "deploy/prometheus/airan.rules.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            if "record" in rule:
                known.labels[rule["record"]] = output(rule["expr"], known) or set()
            yield rule.get("alert") or rule["record"], rule["expr"], " ".join(rule.get("annotations", {}).values())
    for path in sorted((ROOT / "deploy/grafana").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{path.name}: {panel['title']}", target["expr"], target.get("legendFormat", "")


def mutants(expression, shown):
    """The same with one label that does not exist."""
    for found in re.finditer(r"\{[^}]*\}", expression):
        for label in NAMES_LABEL.finditer(found.group()):
            start, end = found.start() + label.start(1), found.start() + label.end(1)
            yield expression[:start] + WRONG + expression[end:], shown
    for found in LISTED.finditer(expression):
        for label in re.finditer(r"\w+", found.group(2)):
            start, end = found.start(2) + label.start(), found.start(2) + label.end()
            yield expression[:start] + WRONG + expression[end:], shown
    for label in re.finditer(r"\$labels\.(\w+)|\{\{ *(\w+) *\}\}", shown):
        start, end = label.span(label.lastindex)
        yield expression, shown[:start] + WRONG + shown[end:]


def main():
    known = Known(pathlib.Path(sys.argv[1]).read_text())
    wrong, unseen, places, count = [], [], 0, 0
    for where, expression, shown in asked(known):
        count += 1
        wrong += [f"{where}: {metric} has no series" for metric in metrics_in(expression) if known.of(metric) is None]
        wrong += [f"{where}: {problem}" for problem in problems(expression, shown, known)]
        for broken, text in mutants(expression, shown):
            places += 1
            if not any(WRONG in problem for problem in problems(broken, text, known)):
                unseen.append(f"{where}: {broken} {text}")
    if wrong or unseen or count < 60 or places < 200:
        unseen = ["places where a wrong label is not noticed:", *unseen] if unseen else []
        sys.exit("\n".join([f"labels that do not exist, in {count} expressions with {places} places:", *wrong, *unseen]))
    print(f"ok   {count} expressions ask for labels that their series have; a wrong one is noticed in each of {places} places")


if __name__ == "__main__":
    main()
