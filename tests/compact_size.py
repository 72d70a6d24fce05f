#!/usr/bin/env python3
"""What the files of a table are, as pyarrow reads them, before and after `airan lake compact`.

usage: compact_size.py facts LAKE TABLE            prints files, bytes, rows and sums of every column of doubles, of the bits of its values
       compact_size.py check LAKE TABLE BEFORE     BEFORE is a file with what was printed then. Each date's files must have the size that
                                                   airan promises by default, follow each other by (site, entity, ts) as their row groups do,
                                                   and hold the same rows
"""
import glob
import json
import os
import sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from sorted import check_apart, check_file

# Bytes of a file, but for the last of a date.
LEAST, MOST = 128_000_000, 512_000_000


def paths(lake, table):
    return sorted(glob.glob(f"{lake}/{table}/date=*/*.parquet"))


def facts(lake, table):
    """Sums are of the highest 32 of a value's 52 bits of fraction, so that they are whole numbers and no order changes them."""
    found = {"files": 0, "bytes": 0, "rows": 0, "sums": {}}
    for path in paths(lake, table):
        file = pyarrow.parquet.ParquetFile(path)
        found["files"] += 1
        found["bytes"] += os.path.getsize(path)
        found["rows"] += file.metadata.num_rows
        names = [field.name for field in file.schema_arrow if pa.types.is_float64(field.type)]
        for group in range(file.num_row_groups):
            for name in names:
                (column,) = file.read_row_group(group, columns=[name]).columns
                for chunk in column.chunks:
                    bits = pc.shift_right(pc.bit_wise_and(chunk.view(pa.int64()), 0x000F_FFFF_FFFF_FFFF), 20)
                    found["sums"][name] = found["sums"].get(name, 0) + (pc.sum(bits).as_py() or 0)
    return found


def check(lake, table, before):
    with open(before, encoding="utf-8") as file:
        before = json.load(file)
    after = facts(lake, table)
    assert (after["rows"], after["sums"]) == (before["rows"], before["sums"]), f"other rows: {before} {after}"
    groups = sum(check_file(path)[1] for path in paths(lake, table))
    for date, files in check_apart(paths(lake, table)).items():
        sizes = [os.path.getsize(path) for path in files]
        assert all(LEAST <= size <= MOST for size in sizes[:-1]) and sizes[-1] <= MOST, f"{date}: files of {sizes} bytes"
        print(f"ok   {os.path.basename(date)}: files of {', '.join(f'{size / 1e6:.0f} MB' for size in sizes)}")
    assert before["files"] > after["files"]
    print(f"ok   {before['files']} files of {before['bytes'] / 1e6:.0f} MB became {after['files']} of {after['bytes'] / 1e6:.0f} MB; "
          f"{after['rows']} rows and the sums of {len(after['sums'])} columns are the same; {groups} row groups, and the files, do not overlap")


if __name__ == "__main__":
    if sys.argv[1] == "facts":
        print(json.dumps(facts(*sys.argv[2:])))
    else:
        check(*sys.argv[2:])
