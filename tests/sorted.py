#!/usr/bin/env python3
"""What `airan lake compact` has made of a table is sorted, as pyarrow reads it: file by file, the rows by the columns that the file itself
names as its order (site, entity, time). Row groups follow each other in that order and do not overlap: by their rows, and by their
statistics alone, so that of all groups those that pyarrow opens for one site are its own.

usage: sorted.py LAKE TABLE FEWEST-ROWS [FILES GROUPS [apart]]     the largest file must have so many rows, so many files so many row
                                                                   groups each; apart: files of one date must not overlap either
"""
import glob
import os
import sys

import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet


def values(columns, order):
    """Each column of the order, as something that can be compared."""
    return [columns[name].combine_chunks() for name in order]


def is_sorted(columns):
    """Whether rows are in the order of their columns, a null before any value."""
    same, wrong = None, None
    for column in columns:
        this, that = column[:-1], column[1:]
        nulls = pc.is_null(this), pc.is_null(that)
        equal = pc.or_(pc.and_(*nulls), pc.fill_null(pc.equal(this, that), False))
        falls = pc.or_(pc.and_(pc.invert(nulls[0]), nulls[1]), pc.fill_null(pc.greater(this, that), False))
        wrong = falls if wrong is None else pc.or_(wrong, pc.and_(same, falls))
        same = equal if same is None else pc.and_(same, equal)
    return not pc.any(wrong).as_py()


def row(columns, at):
    """One row as Python compares it, a null before any value."""
    return tuple((column[at].is_valid, column[at].as_py()) for column in columns)


def bounds(group, names):
    """Least and greatest value of each column of the order by the statistics of a row group; nothing where it has nulls."""
    found = {group.column(at).path_in_schema: group.column(at).statistics for at in range(group.num_columns)}
    return [None if found[name].null_count else (found[name].min, found[name].max) for name in names]


def follow(before, after):
    """Whether statistics alone say that one group ends where the other begins, or before it: by the first column, and where both groups
    have one and the same value of it by the next."""
    for one, other in zip(before, after):
        if one is None or other is None:
            return True
        if one[1] > other[0]:
            return False
        if not one[0] == one[1] == other[0] == other[1]:
            return True
    return True


def check_file(path):
    """Number of rows and of row groups, and the columns it is sorted by."""
    file = pyarrow.parquet.ParquetFile(path)
    order = file.metadata.row_group(0).sorting_columns
    names = [file.metadata.schema.column(column.column_index).path for column in order]
    assert all(column.nulls_first and not column.descending for column in order), f"{path}: {order}"
    assert names[0] == "site" and names[-1] == "ts" and len(names) > 2, f"{path}: sorted by {names}"
    last, stats, sites = None, None, []
    for at in range(file.num_row_groups):
        columns = values(file.read_row_group(at, columns=names), names)
        assert is_sorted(columns), f"{path}: row group {at} is not sorted by {names}"
        first = row(columns, 0)
        assert last is None or last <= first, f"{path}: row group {at} begins before its predecessor's end"
        last = row(columns, -1)
        here = bounds(file.metadata.row_group(at), names)
        for name, column, held in zip(names, columns, here):
            if held is not None:
                edges = pc.min_max(column)
                assert held == (edges["min"].as_py(), edges["max"].as_py()), f"{path}: statistics of {name} in row group {at}"
        assert stats is None or follow(stats, here), f"{path}: row group {at} overlaps its predecessor: {stats} {here}"
        stats = here
        sites.append({site.as_py() for site in pc.unique(columns[0])})
    # What a reader opens for one site: its own groups, and no more.
    fragment = next(iter(pyarrow.dataset.dataset(path, format="parquet").get_fragments()))
    for site in set().union(*sites) - {None}:
        opened = sorted(group.id for group in fragment.subset(pc.field("site") == site).row_groups)
        own = [at for at, held in enumerate(sites) if site in held]
        assert opened == own, f"{path}: for {site} row groups {opened} are opened, {own} have it"
    return file.metadata.num_rows, file.num_row_groups, names


def edges(path):
    """First and last row of a file by the columns it is sorted by, and the bounds of its first and last row group."""
    file = pyarrow.parquet.ParquetFile(path)
    names = [file.metadata.schema.column(column.column_index).path for column in file.metadata.row_group(0).sorting_columns]
    begin, end = 0, file.num_row_groups - 1
    first, last = (values(file.read_row_group(at, columns=names), names) for at in (begin, end))
    return row(first, 0), row(last, -1), bounds(file.metadata.row_group(begin), names), bounds(file.metadata.row_group(end), names)


def check_apart(paths):
    """The files of each date follow each other in the order of their rows, by these and by their statistics; returns them in it."""
    dates = {}
    for path in paths:
        dates.setdefault(os.path.dirname(path), []).append((edges(path), path))
    for files in dates.values():
        files.sort(key=lambda file: file[0][:2])
        for ((_, last, _, high), one), ((first, _, low, _), other) in zip(files, files[1:]):
            assert last <= first and follow(high, low), f"{one} overlaps {other}: {last} {first}, {high} {low}"
    return {date: [path for _, path in files] for date, files in dates.items()}


def main(lake, table, fewest, files="1", groups="1", apart=""):
    paths = sorted(glob.glob(f"{lake}/{table}/date=*/*.parquet"))
    found = [check_file(path) for path in paths]
    assert found, f"{table} has no files"
    rows, counts = max(rows for rows, _, _ in found), [count for _, count, _ in found]
    assert rows >= int(fewest), f"the largest file of {table} has {rows} rows"
    enough = sum(count >= int(groups) for count in counts)
    assert enough >= int(files), f"{enough} files of {table} have {groups} row groups: {counts}"
    if apart:
        check_apart(paths)
        print(f"ok   the {len(paths)} files of {table} do not overlap")
    names = ", ".join(found[0][2])
    print(f"ok   rows of {table} are sorted by {names} in each of {len(found)} files; their {sum(counts)} row groups do not overlap")


if __name__ == "__main__":
    main(*sys.argv[1:])
