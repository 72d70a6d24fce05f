#!/usr/bin/env python3
"""The configuration's JSON Schema against the files it describes, by the `jsonschema` package.

usage: schema.py AIRAN        the binary; run from the repository's root

The defaults (each of their documents) and every example must fit it; files with a mistake must not, and the error must be at the
mistake; every key of the defaults must be in it. Exits 1 and says what is wrong otherwise.
"""

import copy
import json
import pathlib
import re
import subprocess
import sys

import jsonschema
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent

# A file with one mistake each, and the path at which the schema has to see it.
WRONG = [
    ("agnet: {}", []),
    ("agent: {hots: {enabled: true}}", ["agent"]),
    ("agent: {host: {intervall: 10s}}", ["agent", "host"]),
    ("agent: {host: {interval: 10}}", ["agent", "host", "interval"]),
    ("agent: {host: {interval: ten seconds}}", ["agent", "host", "interval"]),
    ("agent: {accelerators: {source: cuda}}", ["agent", "accelerators", "source"]),
    ("agent: {targets: [{name: a}]}", ["agent", "targets", 0]),
    ("agent: {targets: [{name: a, url: 'http://a', interal: 5s}]}", ["agent", "targets", 0]),
    ("gateway: {insecure: 'maybe'}", ["gateway", "insecure"]),
    ("gateway: {request: {bytes: 16 miles}}", ["gateway", "request", "bytes"]),
    ("bus: {type: rabbit}", ["bus"]),
    ("bus: {brokers: 'a:9092'}", ["bus"]),
    ("bus: {type: kafka, path: ./data}", ["bus"]),
    ("log: {format: xml}", ["log", "format"]),
    ("processor: []", ["processor"]),
]

# What differs from the shape of the defaults and is right.
RIGHT = [
    "",
    "processor:",
    "gateway: {request: {samples: '${SAMPLES}', bytes: 1048576}, insecure: '${INSECURE:-false}'}",
    "bus: {partitions: 4}",
    "bus: {type: kafka, brokers: 'a:1', properties: {linger.ms: 5, check.crcs: true, sasl.password: '${file:/run/secret}'}}",
    "agent: {targets: [{name: a, url: 'http://a:1/metrics', interval: 5s, labels: {rack: r1}}]}",
    "agent: {accelerators: {source: nvidia-smi, interval: 30s}}",
    "lake: {max_bytes: null}",
]


class Loader(yaml.SafeLoader):
    """YAML 1.2's truth values, as editors and airan read them: `on` is a key here and no truth value."""


Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), list("tf"))


def documents(text):
    """The YAML documents of a file; an empty one is an empty configuration."""
    return [{} if document is None else document for document in yaml.load_all(text, Loader)] or [{}]


def keys(value, path=()):
    """Every key of nested maps, as a path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from keys(inner, (*path, key))


def main(airan):
    out = subprocess.run([airan, "schema"], check=True, capture_output=True, timeout=60).stdout
    schema = json.loads(out)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    failures = []

    def must_fit(name, document):
        for error in validator.iter_errors(document):
            failures.append(f"{name}: {list(error.absolute_path)}: {error.message[:200]}")

    defaults = documents((ROOT / "config/defaults.yaml").read_text())
    for number, document in enumerate(defaults):
        # `when` says where a document of the defaults holds; it is no setting.
        must_fit(f"defaults.yaml, document {number}", {key: value for key, value in document.items() if key != "when"})
    examples = sorted((ROOT / "config/examples").glob("*.yaml"))
    for path in examples:
        for document in documents(path.read_text()):
            must_fit(path.name, document)
    for text in RIGHT:
        must_fit(text, documents(text)[0])
    for text, path in WRONG:
        seen = [list(error.absolute_path) for error in validator.iter_errors(documents(text)[0])]
        if path not in seen:
            failures.append(f"{text!r}: no error at {path}, but at {seen}")

    # A key that the schema does not have is refused at its place: so each key of the defaults, misspelt, must be.
    misspelt = 0
    for document in defaults:
        document = {key: value for key, value in document.items() if key != "when"}
        for path in keys(document):
            wrong = copy.deepcopy(document)
            inner = wrong
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1] + "_"] = inner.pop(path[-1])
            if validator.is_valid(wrong):
                failures.append(f"defaults.yaml: {'.'.join(path)}_ is taken")
            misspelt += 1

    for failure in failures:
        print("FAIL", failure)
    if failures or len(examples) < 4 or misspelt < 80:
        print(f"{len(failures)} failures, {len(examples)} examples, {misspelt} keys")
        return 1
    print(f"ok   {len(defaults)} documents of defaults, {len(examples)} examples, {len(WRONG)} mistakes, {misspelt} misspelt keys")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
