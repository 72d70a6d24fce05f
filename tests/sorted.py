#!/usr/bin/env python3
"""What `airan lake compact` has made of a table is sorted, as pyarrow reads it: file by file, the rows by the columns that the file itself
names as its order (site, entity, time), which bounds of its row groups follow: no two groups overlap.

usage: sorted.py LAKE TABLE FEWEST-ROWS     at least one file must have so many rows
"""
import glob
import sys

import pyarrow.parquet


def main(lake, table, fewest):
    most = groups = 0
    for path in sorted(glob.glob(f"{lake}/{table}/date=*/*.parquet")):
        file = pyarrow.parquet.ParquetFile(path)
        order = file.metadata.row_group(0).sorting_columns
        names = [file.metadata.schema.column(column.column_index).path for column in order]
        assert all(column.nulls_first and not column.descending for column in order), f"{path}: {order}"
        assert names[0] == "site" and names[-1] == "ts" and "node" in names and "device" in names, f"{path}: sorted by {names}"
        last = None
        for group in range(file.num_row_groups):
            columns = file.read_row_group(group, columns=names).to_pydict()
            # Null comes before any value.
            rows = [tuple((value is not None, value) for value in row) for row in zip(*(columns[name] for name in names))]
            assert rows == sorted(rows), f"{path}: row group {group} is not sorted by {names}"
            assert last is None or last <= rows[0], f"{path}: row group {group} begins before its predecessor's end"
            last, groups = rows[-1], groups + 1
            for at in range(file.metadata.num_columns):
                column = file.metadata.row_group(group).column(at)
                if column.path_in_schema in names and columns[column.path_in_schema].count(None) == 0:
                    held = column.statistics
                    of = columns[column.path_in_schema]
                    assert (held.min, held.max) == (min(of), max(of)), f"{path}: statistics of {column.path_in_schema}"
        most = max(most, file.metadata.num_rows)
    assert most >= int(fewest), f"the largest file of {table} has {most} rows"
    print(f"ok   rows of {table} are sorted by {', '.join(names)} in each file, {groups} row groups; statistics are those of the rows")


if __name__ == "__main__":
    main(*sys.argv[1:])
