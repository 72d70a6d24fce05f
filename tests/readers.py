"""What airan writes, read by DuckDB, Polars, pandas, pyarrow and deltalake: as Parquet files and as Delta tables.

usage: readers.py LAKE_FOLDER COUNTS_JSON [TABLE...]

The Delta logs of these TABLEs must begin with a checkpoint, their first commits gone. COUNTS_JSON is what `airan query --format json`
says of the same lake: [{"table": …, "rows": …}, …]. Each reader must count
the same rows, see the same types, and prune by the date partition. Everything must be published to Delta before, so that
files and Delta tables hold the same. Exits 1 with the differences.
"""

import glob
import json
import sys

import deltalake
import duckdb
import duckdb_ext
import pandas
import polars
import pyarrow.dataset
import pyarrow.parquet

PASSED = 0
FAILED = []


def check(what, ok, detail=""):
    """Counts one check and prints it."""
    global PASSED
    print(f"{'ok  ' if ok else 'FAIL'} {what} {detail if not ok else ''}".rstrip())
    if ok:
        PASSED += 1
    else:
        FAILED.append(what)


# Files of fewer rows have units alone: descriptions would be longer than the rows.
DESCRIBED_ROWS = 1 << 14
# Columns that say whose a row is, where a table has them.
LABELS = ["site", "node", "device"]


def instants(con, scan, time, labels):
    """Rows and sum of their times by date and label, as DuckDB has them."""
    by = ", ".join(["date", *labels])
    grouped = con.execute(f"SELECT {by}, count(*), sum(epoch_us({time})) FROM {scan} GROUP BY {by}").fetchall()
    return {(str(date), *values): (count, int(total)) for date, *values, count, total in grouped}


def check_frame(table, what, frame, rows, time, labels, ours):
    """One table as a pandas frame: as many rows, UTC microseconds, labels that are text, the same instants by date and label."""
    check(f"{table}: {what} counts {rows}", len(frame) == rows, f"counted {len(frame)}")
    dtype = frame[time].dtype
    utc = str(dtype) == "datetime64[us, UTC]"
    check(f"{table}: {what} sees UTC microseconds", utc, str(dtype))
    kinds = {name: frame[name].dtype for name in labels}
    # Text, or categories of text where a reader keeps the dictionary.
    texts = [kind.categories.dtype if isinstance(kind, pandas.CategoricalDtype) else kind for kind in kinds.values()]
    text = bool(texts) and all(isinstance(kind, pandas.StringDtype) for kind in texts)
    check(f"{table}: {what} sees labels as text", text, str(kinds))
    if not utc:
        return
    # By Python's integers: sums of microseconds of many rows are over 64 bits.
    theirs = {}
    labelled = [[None if pandas.isna(value) else value for value in frame[name]] for name in labels]
    for date, at, *values in zip(frame["date"].astype(str), frame[time].astype("int64"), *labelled):
        key = (date, *values)
        count, total = theirs.get(key, (0, 0))
        theirs[key] = (count + 1, total + int(at))
    differ = {key: (theirs.get(key), ours.get(key)) for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key)}
    check(f"{table}: {what} and DuckDB see the same instants by {', '.join(['date', *labels])}", not differ, str(differ)[:2000])


def check_fields(table, path, time):
    """Units and descriptions of one file, through pyarrow: in each field, and units once more in the footer."""
    schema = pyarrow.parquet.read_schema(path)
    footer = pyarrow.parquet.read_metadata(path)
    units = {field.name: field.metadata[b"unit"].decode() for field in schema if b"unit" in (field.metadata or {})}
    once_more = json.loads(footer.metadata[b"airan.units"])
    check(f"{table}: pyarrow sees the same units in the fields and in the footer", units == once_more,
          f"{units} {once_more}")
    if time == "ts" and table != "event":
        check(f"{table}: pyarrow sees units", bool(units), str(schema.names))
    if table == "accelerator":
        found = [units.get(name) for name in ("utilization", "power_watts")]
        check(f"{table}: pyarrow sees a ratio and watts", found == ["ratio", "watts"], str(found))
    bare = [name for name in units if b"meaning" not in schema.field(name).metadata]
    if footer.num_rows >= DESCRIBED_ROWS:
        check(f"{table}: pyarrow sees descriptions", not bare, str(bare))


def delta_extension():
    """DuckDB's extension as PyPI has it: its own download needs its own server."""
    found = [path for folder in duckdb_ext.__path__
             for path in glob.glob(f"{folder}/extensions/v{duckdb.__version__}/*/delta.duckdb_extension")]
    return found[0]


def check_delta(con, lake, table, rows, time, opened):
    """One table through its Delta log, which deltalake has opened."""
    path = f"{lake}/{table}"
    scan = f"delta_scan('{path}')"
    count, dates = con.execute(f"SELECT count(*), count(DISTINCT date) FROM {scan}").fetchone()
    check(f"{table}: DuckDB's delta_scan counts {rows}", count == rows, f"counted {count}")
    kinds = {r[0]: r[1] for r in con.execute(f"DESCRIBE SELECT * FROM {scan}").fetchall()}
    check(f"{table}: delta_scan has UTC times and dates",
          (kinds[time], kinds["date"]) == ("TIMESTAMP WITH TIME ZONE", "DATE"), str(kinds))
    # The same rows, not only as many: sums over every row's time, site and date.
    sums = f"count(*), sum(epoch_us({time})), count(DISTINCT site), min(date), max(date), bit_xor(hash({time}, site))"
    files = f"read_parquet('{path}/date=*/*.parquet', hive_partitioning = true, union_by_name = true)"
    theirs = con.execute(f"SELECT {sums} FROM {scan}").fetchone()
    ours = con.execute(f"SELECT {sums} FROM {files}").fetchone()
    check(f"{table}: delta_scan and the files have the same rows", theirs == ours, f"{theirs} {ours}")
    first = con.execute(f"SELECT min({time}) FROM {scan}").fetchone()[0]
    some = con.execute(f"SELECT count(*) FROM {scan} WHERE {time} <= ?", [first]).fetchone()[0]
    check(f"{table}: delta_scan finds rows by time", some >= 1, str(some))

    frame = polars.read_delta(path)
    check(f"{table}: Polars' read_delta counts {rows}", frame.height == rows, f"counted {frame.height}")
    check(f"{table}: Polars sees {dates} dates", frame["date"].n_unique() == dates)
    dtype = frame.schema[time]
    check(f"{table}: Polars sees UTC microseconds through Delta", dtype == polars.Datetime("us", "UTC"), str(dtype))

    found = opened.to_pyarrow_dataset().count_rows()
    check(f"{table}: deltalake counts {rows}", found == rows, f"counted {found}")
    fields = {field.name: field for field in opened.schema().fields}
    units = [name for name, field in fields.items() if "unit" in field.metadata]
    if time == "ts" and table != "event":
        check(f"{table}: deltalake sees units", bool(units), str(list(fields)))
        bare = [name for name in units if not fields[name].metadata.get("comment")]
        check(f"{table}: deltalake sees descriptions", not bare, str(bare))
    check(f"{table}: the table is partitioned by date", opened.metadata().partition_columns == ["date"])


def check_log(lake, table):
    """A Delta log that begins with a checkpoint: the first commits are gone, and all that was added in them is known all the same."""
    log = f"{lake}/{table}/_delta_log"
    with open(f"{log}/_last_checkpoint", encoding="utf-8") as file:
        last = json.load(file)["version"]
    commits = sorted(int(path.split("/")[-1].removesuffix(".json")) for path in glob.glob(f"{log}/*.json"))
    points = sorted(int(path.split("/")[-1].split(".")[0]) for path in glob.glob(f"{log}/*.checkpoint.parquet"))
    # What is younger than a day stays beside the checkpoint that stands in for it.
    check(f"{table}: version 0 is gone from the log, and a checkpoint stands in for it",
          0 < commits[0] <= points[0] + 1 and last == points[-1], f"commits {commits} checkpoints {points} last {last}")
    try:
        deltalake.DeltaTable(f"{lake}/{table}", version=0)
        gone = False
    except deltalake.exceptions.DeltaError:
        gone = True
    check(f"{table}: version 0 is no more", gone)


def main(lake, counts_path, *cleared):
    """Runs every check over the lake folder."""
    with open(counts_path, encoding="utf-8") as file:
        expected = {row["table"]: int(row["rows"]) for row in json.load(file)}
    check("the lake has tables with rows", any(expected.values()), str(expected))
    folders = glob.glob(f"{lake}/*/date=*")
    check("a table has rows of several dates", len(folders) > len({f.rsplit("/", 1)[0] for f in folders}), str(folders))
    con = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    con.execute(f"LOAD '{delta_extension()}'")
    con.execute("SET TimeZone = 'UTC'")
    for table, rows in sorted(expected.items()):
        pattern = f"{lake}/{table}/date=*/*.parquet"
        files = sorted(glob.glob(pattern))
        if rows == 0 and not files:
            continue
        check(f"{table}: files", bool(files), pattern)
        if not files:
            continue
        time = "ts" if "ts" in pyarrow.parquet.read_schema(files[0]).names else "window_start"
        scan = f"read_parquet('{pattern}', hive_partitioning = true, union_by_name = true)"

        count = con.execute(f"SELECT count(*) FROM {scan}").fetchone()[0]
        check(f"{table}: DuckDB counts {rows}", count == rows, f"counted {count}")
        kinds = {r[0]: r[1] for r in con.execute(f"DESCRIBE SELECT * FROM {scan}").fetchall()}
        check(f"{table}: {time} has a time zone", kinds[time] == "TIMESTAMP WITH TIME ZONE", kinds[time])
        check(f"{table}: date is a DATE", kinds["date"] == "DATE", kinds["date"])
        unsigned = [name for name, kind in kinds.items() if kind.startswith("U") and kind.endswith("INT")]
        check(f"{table}: no unsigned integers", not unsigned, str(unsigned))
        strays = con.execute(f"SELECT count(*) FROM {scan} WHERE CAST({time} AS DATE) <> date").fetchone()[0]
        check(f"{table}: every row lies in the folder of its date", strays == 0, f"{strays} do not")

        # Pruning: a date that no folder has must open no file.
        plan = con.execute(f"EXPLAIN ANALYZE SELECT count(*) FROM {scan} WHERE date = DATE '1999-01-01'").fetchall()[0][1]
        full = con.execute(f"EXPLAIN ANALYZE SELECT count({time}) FROM {scan}").fetchall()[0][1]
        check(f"{table}: DuckDB prunes by date", "Scanning Files: 0/" in plan or "Total Files Read: 0" in plan
              or "EMPTY_RESULT" in plan, plan)
        check(f"{table}: DuckDB reads every file without a filter", "EMPTY_RESULT" not in full)
        # A date that one of several folders has must open its files only.
        dates = sorted({file.split("/date=")[1][:10] for file in files})
        here = sum(f"/date={dates[0]}/" in file for file in files)
        if here < len(files):
            # Rows, not their number: DuckDB may count from a footer that it has open already.
            plan = con.execute(f"EXPLAIN SELECT {time} FROM {scan} WHERE date = DATE '{dates[0]}'").fetchall()[0][1]
            wanted = f"Scanning Files: {here}/{len(files)}"
            check(f"{table}: DuckDB opens {here} of {len(files)} files for {dates[0]}", wanted in plan, plan)

        frame = polars.scan_parquet(pattern, hive_partitioning=True, missing_columns="insert",
                                     extra_columns="ignore")
        height = frame.select(polars.len()).collect().item()
        check(f"{table}: Polars counts {rows}", height == rows, f"counted {height}")
        dtype = frame.collect_schema()[time]
        check(f"{table}: Polars sees UTC microseconds", dtype == polars.Datetime("us", "UTC"), str(dtype))

        data = pyarrow.dataset.dataset(f"{lake}/{table}", format="parquet", partitioning="hive")
        check(f"{table}: pyarrow counts {rows}", data.count_rows() == rows, f"counted {data.count_rows()}")

        labels = [name for name in LABELS if name in data.schema.names]
        wanted = [time, "date", *labels]
        ours = instants(con, scan, time, labels)
        opened = deltalake.DeltaTable(f"{lake}/{table}")
        frame = pandas.read_parquet(f"{lake}/{table}", columns=wanted)
        check_frame(table, "pandas", frame, rows, time, labels, ours)
        check_frame(table, "pandas through deltalake", opened.to_pandas(columns=wanted), rows, time, labels, ours)
        if table in cleared:
            check_log(lake, table)
        check_fields(table, max(files, key=lambda file: pyarrow.parquet.read_metadata(file).num_rows), time)
        check_delta(con, lake, table, rows, time, opened)

        meta = pyarrow.parquet.ParquetFile(files[0])
        group = meta.metadata.row_group(0)
        check(f"{table}: zstd", group.column(0).compression == "ZSTD", group.column(0).compression)
        columns = [group.column(index) for index in range(group.num_columns)]
        stats = [column.is_stats_set for column in columns if column.path_in_schema == time]
        check(f"{table}: statistics on {time}", stats == [True], str(stats))
    print(f"\n{PASSED} passed, {len(FAILED)} failed")
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
