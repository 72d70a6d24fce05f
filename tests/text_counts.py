#!/usr/bin/env python3
"""Counts the samples of Prometheus text files with the Prometheus project's own Python parser.

The counts must be those of crates/airan-decode/fixtures/counts.tsv, which the tests of that crate hold the decoder to: so a line that
our parser overlooked, or read as two, is found by a second implementation.

    tests/text_counts.py [SAMPLES]

SAMPLES is the folder of other systems' files; without it, $AIRAN_SAMPLES, else ../shared/samples beside the checkout.
"""

import os
import sys
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
    print(f"{files} files, {total} samples, {wrong} counts that differ")
    return 1 if wrong or not files else 0


if __name__ == "__main__":
    sys.exit(main())
