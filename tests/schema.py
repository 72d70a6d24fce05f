#!/usr/bin/env python3
"""The JSON Schemas that `airan schema` prints against the files they describe, by the `jsonschema` package.

usage: schema.py AIRAN        the binary; run from the repository's root

Of the configuration: the defaults (each of their documents) and every example must fit it; files with a mistake must not, and the error
must be at the mistake; every key of the defaults must be in it. Of pipelines and of the catalog: every file that is shipped must fit, and
files with a mistake must be refused twice, by the schema at the mistake and by `airan validate`. Exits 1 and says what is wrong otherwise.
"""

import copy
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

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

# What is done to pipelines/link_use/pipeline.yaml, and the path at which the schema has to see it.
WRONG_PIPELINES = [
    (lambda of: of.update(latenes=of.pop("lateness")), []),
    (lambda of: of.pop("table"), []),
    (lambda of: of.update(lateness=10), ["lateness"]),
    (lambda of: of.update(lateness="soon"), ["lateness"]),
    (lambda of: of.update(staleness_windows="three"), ["staleness_windows"]),
    (lambda of: of.update(staleness_windows=0), ["staleness_windows"]),
    (lambda of: of.update(name="Link-Use"), ["name"]),
    (lambda of: of.update(metrics={}), ["metrics"]),
    (lambda of: of["metrics"][0].update(hepl=of["metrics"][0].pop("help")), ["metrics", 0]),
    (lambda of: of["metrics"][0].update(type="counters"), ["metrics", 0, "type"]),
    (lambda of: of["metrics"][0].update(unit="kilobytes"), ["metrics", 0, "unit"]),
    (lambda of: of["metrics"][0].update(labels="site"), ["metrics", 0, "labels"]),
]

# Files of a catalog beside the shipped ones, and the path at which the schema has to see the mistake.
WRONG_CATALOGS = [
    ("strems: []", []),
    ("streams: {name: a}", ["streams"]),
    ("streams: [{nmae: host}]", ["streams", 0]),
    ("streams: [{name: Host}]", ["streams", 0, "name"]),
    ("streams: [{name: meter, meaning: m, period: 10, entity: [], columns: []}]", ["streams", 0, "period"]),
    ("streams: [{name: host, columns: [{name: a, kind: gage, unit: count, meaning: m}]}]", ["streams", 0, "columns", 0, "kind"]),
    ("streams: [{name: host, columns: [{name: a, kind: gauge, unit: percent, meaning: m}]}]", ["streams", 0, "columns", 0, "unit"]),
    ("streams: [{name: host, columns: [{name: a, kind: gauge, unit: count}]}]", ["streams", 0, "columns", 0]),
    ("sources: [{name: a}]", ["sources", 0]),
    ("sources: [{name: a, meaning: m, node: hostname}]", ["sources", 0, "node"]),
    ("sources: [{name: a, meaning: m, sentinels: [none]}]", ["sources", 0, "sentinels", 0]),
    ("sources: [{name: a, meaning: m, metrics: [{name: x, to: host.load1, units: count}]}]", ["sources", 0, "metrics", 0]),
    ("sources: [{name: a, meaning: m, metrics: [{name: x, to: load1}]}]", ["sources", 0, "metrics", 0, "to"]),
    ("sources: [{name: a, meaning: m, metrics: [{name: x, to: host.load1, unit: furlongs}]}]", ["sources", 0, "metrics", 0, "unit"]),
    ("sources: [{name: a, meaning: m, metrics: [{name: x, to: host.load1, combine: mean}]}]", ["sources", 0, "metrics", 0, "combine"]),
    ("sources: [{name: a, meaning: m, metrics: [{name: x, to: host.load1, below: many}]}]", ["sources", 0, "metrics", 0, "below"]),
    ("drop_fields: imsi", ["drop_fields"]),
]

# What is right beside the shipped ones.
RIGHT_CATALOGS = [
    "{}",
    "streams: [{name: host, columns: [{name: fans, kind: gauge, unit: count, meaning: fans that turn}]}]",
    "sources: [{name: a, meaning: m, metrics: [{name: x_load, to: host.load1, below: 5, when: {kind: short}}]}]",
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


def validator_of(airan, what):
    """The schema that the binary prints, itself checked."""
    out = subprocess.run([airan, "schema", what], check=True, capture_output=True, timeout=60).stdout
    schema = json.loads(out)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def is_taken(airan, section, folder):
    """Whether `airan validate` takes a folder of pipelines or of the catalog; a refusal is status 1 or 2 and words, never a crash."""
    config = folder.parent / "config.yaml"
    config.write_text(json.dumps({section: {"folder": str(folder)}}))
    run = subprocess.run([airan, "validate", "--config", str(config)], capture_output=True, text=True, timeout=60)
    assert run.returncode in (0, 1, 2) and (run.returncode == 0 or run.stderr), (run.returncode, run.stderr)
    return run.returncode == 0


def files_of(airan, what, section, shipped, cases):
    """Holds every shipped file against a schema, and each case (name, document, path of the mistake or None, folder) against schema and
    program."""
    validator = validator_of(airan, what)
    failures = []
    for path in shipped:
        for document in documents(path.read_text()):
            failures += [f"{path}: {list(error.absolute_path)}: {error.message[:200]}" for error in validator.iter_errors(document)]
    for name, document, mistake, folder in cases:
        seen = [list(error.absolute_path) for error in validator.iter_errors(document)]
        taken = is_taken(airan, section, folder)
        if mistake is None and (seen or not taken):
            failures.append(f"{what}: {name} is right: the schema sees errors at {seen}, airan validate takes it: {taken}")
        if mistake is not None and (mistake not in seen or taken):
            failures.append(f"{what}: {name}: no error at {mistake}, but at {seen}; airan validate takes it: {taken}")
    return failures


def pipelines(work):
    """Cases of pipelines, written under `work`."""
    shipped = ROOT / "pipelines/link_use"
    change_nothing = lambda of: None
    for number, (change, mistake) in enumerate([(change_nothing, None), *WRONG_PIPELINES]):
        document = documents((shipped / "pipeline.yaml").read_text())[0]
        # Aliases make one object of several: each is to be changed alone.
        document = json.loads(json.dumps(document))
        change(document)
        folder = work / f"pipelines-{number}"
        shutil.copytree(shipped, folder / shipped.name)
        (folder / shipped.name / "pipeline.yaml").write_text(json.dumps(document))
        yield f"change {number}", document, mistake, folder


def catalogs(work):
    """Cases of the catalog, written under `work`."""
    cases = [(text, None) for text in RIGHT_CATALOGS] + WRONG_CATALOGS
    for number, (text, mistake) in enumerate(cases):
        folder = work / f"catalog-{number}"
        shutil.copytree(ROOT / "config/catalog", folder)
        (folder / "own.yaml").write_text(text)
        yield text, documents(text)[0], mistake, folder


def main(airan):
    validator = validator_of(airan, "config")
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

    shipped = {name: sorted((ROOT / name).glob(what)) for name, what in [("pipelines", "*/pipeline.yaml"), ("config/catalog", "*.yaml")]}
    with tempfile.TemporaryDirectory(prefix="airan-schema") as work:
        work = pathlib.Path(work)
        failures += files_of(airan, "pipeline", "pipelines", shipped["pipelines"], pipelines(work))
        failures += files_of(airan, "catalog", "catalog", shipped["config/catalog"], catalogs(work))

    for failure in failures:
        print("FAIL", failure)
    if failures or len(examples) < 4 or misspelt < 80 or any(len(paths) < 8 for paths in shipped.values()):
        print(f"{len(failures)} failures, {len(examples)} examples, {misspelt} keys")
        return 1
    print(f"ok   {len(defaults)} documents of defaults, {len(examples)} examples, {len(WRONG)} mistakes, {misspelt} misspelt keys")
    print(f"ok   {len(shipped['pipelines'])} pipelines, {len(WRONG_PIPELINES)} mistakes; {len(shipped['config/catalog'])} files of the catalog, "
          f"{len(WRONG_CATALOGS)} mistakes: refused by schema and program")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
