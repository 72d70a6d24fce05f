#!/usr/bin/env python3
"""`airan lake erase` does what its report says: what it should say is counted before by DuckDB, over the files.

usage: erasure.py LAKE CONDITION AIRAN ARGUMENT...     (CONDITION over `accelerator`; arguments: --config FILE --data FOLDER)

Scenario: rows of one node, of closed windows, are erased with no process at work; first as a dry run.
Guarantees: rows, files, sites and their span as told; each window made of them restated once in each pipeline that has rows of it, and no
older revision of one left; a dry run changes nothing.
"""
import re
import subprocess
import sys

import duckdb

# Pipelines over `accelerator` that have rows here, with their windows in seconds (pipelines/*/query.sql).
WINDOWS = {"accelerator_capacity": 10, "site_capacity": 60}


def main(lake, condition, airan, *arguments):
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")

    def ask(table, chosen, where="true"):
        scan = f"read_parquet('{lake}/{table}/date=*/*.parquet', hive_partitioning = true, union_by_name = true, filename = true)"
        return con.execute(f"SELECT {chosen} FROM {scan} WHERE {where}").fetchall()

    def erase(*more):
        done = subprocess.run([airan, "lake", "erase", "--where", condition, *more, *arguments],
                              check=True, capture_output=True, text=True, timeout=600)
        print(done.stdout, end="")
        return done.stdout

    def said(pattern, text):
        found = re.findall(pattern, text, re.M)
        assert len(found) == 1, f"{len(found)} lines of the report are: {pattern}"
        return found[0]

    span = "strftime(min(ts), '%Y-%m-%dT%H:%M:%S.%f'), strftime(max(ts), '%Y-%m-%dT%H:%M:%S.%f')"
    [(rows, files, sites, first, last)] = ask(
        "accelerator", f"count(*), count(DISTINCT filename), count(DISTINCT coalesce(site, '')), {span}", condition)
    assert rows and files, f"no row meets {condition}"
    [(all_rows,)] = ask("accelerator", "count(*)")
    numbers = r"accelerator: (\d+) rows in (\d+) files {}, of (\d+) sites, (\S+)Z to (\S+)Z$"
    counted = (str(rows), str(files), str(sites), first, last)

    told = said("^" + numbers.format("would go"), erase("--dry-run"))
    assert told == counted, f"a dry run tells {told}, DuckDB counts {counted}"
    assert ask("accelerator", "count(*)") == [(all_rows,)], "a dry run changed rows"

    def bins(width):
        at = f"time_bucket(INTERVAL {width} SECONDS, ts)"
        return set(ask("accelerator", f"DISTINCT coalesce(site, ''), epoch_us({at})", condition))

    def of_windows(table, windows):
        found = ask(table, "coalesce(site, ''), epoch_us(window_start), revision")
        return [row for row in found if row[:2] in windows]

    affected = {table: bins(width) for table, width in WINDOWS.items()}
    before = {table: of_windows(table, windows) for table, windows in affected.items()}
    report = erase("--offline", "--purge")
    told = said("^" + numbers.format("went"), report)
    assert told == counted, f"the report tells {told}, DuckDB counted {counted}"
    assert ask("accelerator", "count(*)", condition) == [(0,)], "rows are left"
    assert ask("accelerator", "count(*)") == [(all_rows - rows,)], "other rows went"
    print(f"ok   the report is right about rows: {rows} in {files} files went")

    for table, windows in affected.items():
        restated, emptied, old = said(rf"^{table}: (\d+) windows of sites restated, (\d+) left without rows, (\d+) rows of older revisions",
                                      report)
        assert (int(restated), int(emptied)) == (len(windows), 0), f"{table}: {restated} and {emptied} told, {len(windows)} affected"
        # Restating may itself leave an older revision, which goes too.
        assert int(old) >= len(before[table]) > 0, f"{table}: {old} rows of older revisions told, {len(before[table])} were there"
        after = of_windows(table, windows)
        assert {row[:2] for row in after} == windows, f"{table}: windows are gone"
        revisions = {}
        for site, at, revision in after:
            revisions.setdefault((site, at), set()).add(revision)
        several = {window: found for window, found in revisions.items() if len(found) > 1}
        assert not several, f"{table}: older revisions are left: {several}"
        print(f"ok   the report is right about {table}: {restated} windows restated, none in an older revision")
    others = set(re.findall(r"^(\w+): \d+ windows of sites restated", report, re.M)) - set(WINDOWS)
    assert not others, f"restated though without rows here: {others}"
    # What the windows say is made of the rows that are left.
    left = {(node, device, at) for node, device, at in ask(
        "accelerator", "DISTINCT node, device, epoch_us(time_bucket(INTERVAL 10 SECONDS, ts))")}
    made = ask("accelerator_capacity", "node, device, epoch_us(window_start), coalesce(site, '')")
    strange = [row for row in made if (row[3], row[2]) in affected["accelerator_capacity"] and row[:3] not in left]
    assert not strange, f"windows of devices without a row: {strange[:5]}"
    print("ok   no window is of a device whose rows went")


if __name__ == "__main__":
    main(*sys.argv[1:])
