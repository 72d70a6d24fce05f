#!/usr/bin/env python3
"""Counts the samples of Prometheus text files with the Prometheus project's own Python parser, the points of OTLP files
with Python's JSON, and what nvidia-smi and rocm-smi have printed with Python's XML and JSON.

The counts must be those of crates/airan-decode/fixtures/counts.tsv and otlp_counts.tsv and of crates/airan-agent/fixtures/printed_counts.tsv,
which the tests of these crates hold the decoders to: so a line, point or device that ours overlooked, or read as two, is found by a
second implementation.

    tests/text_counts.py [SAMPLES]

SAMPLES is the folder of other systems' files; without it, $AIRAN_SAMPLES, else ../shared/samples beside the checkout.
"""

import json
import os
import sys
import xml.etree.ElementTree
from pathlib import Path

from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics

ROOT = Path(__file__).resolve().parent.parent
CRATE = ROOT / "crates" / "airan-decode"


def count(path: Path) -> int:
    text = path.read_text()
    is_open = ".om." in path.name or "_om_" in path.name
    families = (openmetrics if is_open else parser).text_string_to_metric_families(text)
    return sum(len(family.samples) for family in families)


def points(value: object, kind: str = "") -> list[tuple[str, dict]]:
    """Each point of an OTLP file, with the kind of its metric."""
    if isinstance(value, list):
        return [point for one in value for point in points(one, kind)]
    if not isinstance(value, dict):
        return []
    here = [(kind, point) for point in value.get("dataPoints", [])]
    return here + [point for key, inner in value.items() if key != "dataPoints" for point in points(inner, key)]


def otlp_counts(path: Path) -> list[float]:
    """Points, the sum of the numbers among these, and the values in histograms."""
    found = points(json.loads(path.read_text()))
    numbers = [float(p.get("asDouble", p.get("asInt"))) for kind, p in found if kind in ("gauge", "sum")]
    held = [int(p["count"]) for kind, p in found if kind in ("histogram", "exponentialHistogram")]
    return [len(found), sum(numbers), sum(held)]


def printed_counts(path: Path) -> list[float]:
    """Devices, slices, processes, and bytes of memory of devices and of slices."""
    if path.suffix == ".json":
        cards = [card for name, card in json.loads(path.read_text()).items() if name.startswith("card")]
        return [len(cards), 0, 0, sum(int(card["VRAM Total Memory (B)"]) for card in cards), 0]
    root = xml.etree.ElementTree.parse(path).getroot()
    devices, slices = root.findall("gpu"), root.findall("gpu/mig_devices/mig_device")

    def memory(elements: list) -> int:
        return sum(int(element.findtext("fb_memory_usage/total").removesuffix(" MiB")) << 20 for element in elements)

    return [len(devices), len(slices), len(root.findall("gpu/processes/process_info")), memory(devices), memory(slices)]


def main() -> int:
    default = os.environ.get("AIRAN_SAMPLES", str(ROOT.parent / "shared" / "samples"))
    samples = Path(sys.argv[1] if len(sys.argv) > 1 else default)
    wrong = files = total = 0
    for line in (CRATE / "fixtures" / "counts.tsv").read_text().splitlines():
        if line.startswith("#"):
            continue
        name, expected = line.split("\t")[:2]
        path = (CRATE if name.startswith("fixtures/") else samples) / name
        found = count(path)
        files, total = files + 1, total + found
        if found != int(expected):
            wrong += 1
            print(f"{name}: {found} samples, {expected} expected")
    tables = (
        (CRATE / "fixtures" / "otlp_counts.tsv", otlp_counts),
        (ROOT / "crates" / "airan-agent" / "fixtures" / "printed_counts.tsv", printed_counts),
    )
    for table, counts in tables:
        for line in table.read_text().splitlines():
            if line.startswith("#"):
                continue
            name, *expected = line.split("\t")
            found = counts(samples / name)
            files += 1
            if found != [float(number) for number in expected]:
                wrong += 1
                print(f"{name}: {found}, {expected} expected")
    print(f"{files} files, {total} samples of text, {wrong} counts that differ")
    return 1 if wrong or not files else 0


if __name__ == "__main__":
    sys.exit(main())
