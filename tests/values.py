#!/usr/bin/env python3
"""Every value of the lake, as `airan query` has it and as DuckDB, Polars, pandas, pyarrow and deltalake read it.

Each column of each table becomes a few numbers: how many values are not null, least, most, how many different, and a sum in which each
value (of texts their length) is weighed by the time of its row, so that a value in another row shows as a lost one does. `airan query`
computes them in SQL, for the readers they are computed here, from what each of them hands out. Files and Delta tables are read; all must
be published before.

usage: values.py LAKE AIRAN ARGUMENT...     (arguments of `airan query`: --config FILE --data FOLDER)
"""
import glob
import json
import math
import subprocess
import sys

import deltalake
import duckdb
import pandas
import polars
import pyarrow
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet

from readers import delta_extension

# Rows are weighed by their time modulo this prime.
PRIME = 9973
# Of sums of floating numbers, which are added in different orders.
RELATIVE = 1e-9


class Query:
    """`airan query`."""

    def __init__(self, airan, arguments):
        self.command = [airan, "query", *arguments, "--format", "json"]

    def __call__(self, sql):
        return json.loads(subprocess.run([*self.command, sql], check=True, capture_output=True, text=True, timeout=300).stdout)


def kind_of(type_name):
    """How a column is compared, by its type in `DESCRIBE`."""
    for start, kind in (("Timestamp", "time"), ("Map", "map"), ("Struct", "histogram"), ("Date", "text"), ("Utf8", "text"),
                        ("Dictionary", "text"), ("Boolean", "number"), ("Int", "number"), ("UInt", "number"), ("Float", "number")):
        if type_name.startswith(start):
            return kind
    sys.exit(f"a column of type {type_name}: say here how it is compared")


def asked(column, kind, time):
    """The numbers of a column, in SQL."""
    weight = f"(CAST({time} AS BIGINT) % {PRIME})"
    c = f'"{column}"'
    match kind:
        case "number":
            x = f"CAST({c} AS DOUBLE)"
            return [f"count({c})", f"min({x})", f"max({x})", f"count(DISTINCT {x})", f"sum({x} * {weight})"]
        case "text":
            x = f"CAST({c} AS VARCHAR)"
            return [f"count({c})", f"min({x})", f"max({x})", f"count(DISTINCT {x})", f"sum(character_length({x}) * {weight})"]
        case "time":
            x = f"CAST({c} AS BIGINT)"
            return [f"count({c})", f"min({x})", f"max({x})", f"count(DISTINCT {x})", f"sum({x} % {PRIME} * {weight})"]
        case "map":
            texts = [f"character_length(array_to_string(map_{part}({c}), ''))" for part in ("keys", "values")]
            return [f"count({c})", f"sum(cardinality({c}))", *(f"sum({text} * {weight})" for text in texts)]
        case "histogram":
            # Their number and their sum, and the buckets written out.
            buckets = f"character_length(array_to_string({c}['counts'], ','))"
            return [f"count({c})", f"sum({c}['count'] * {weight})", f"sum({c}['sum'] * {weight})", f"sum({buckets} * {weight})",
                    f"sum(cardinality({c}['bounds']) * {weight})"]


def by_airan(query, table, kinds, time):
    counts = ", ".join(f'count("{column}") AS "{column}"' for column in kinds)
    [filled] = query(f"SELECT {counts} FROM {table}")
    # Most columns of a stream are of one vendor, and null from the others.
    numbers = {column: [] if count else None for column, count in filled.items()}
    kinds = {column: kind for column, kind in kinds.items() if filled[column]}
    parts = [(column, index, sql) for column, kind in kinds.items() for index, sql in enumerate(asked(column, kind, time))]
    chosen = ", ".join(f'{sql} AS "{column}/{index}"' for column, index, sql in parts)
    [row] = query(f"SELECT {chosen} FROM {table}")
    for column, index, _ in parts:
        numbers[column].append(row.get(f"{column}/{index}"))
    return numbers


def as_micros(values):
    """Instants as numbers of microseconds."""
    if pyarrow.types.is_timestamp(values.type):
        return pc.cast(pc.cast(values, pyarrow.timestamp("us", values.type.tz)), pyarrow.int64())
    return values


def numbers_of(values, kind, weight):
    """The same numbers of a column as a reader has it, None where all is null: an array of Arrow, or a list of maps or histograms."""
    if kind in ("map", "histogram"):
        rows = values if isinstance(values, list) else values.to_pylist()
        present = [(value, w) for value, w in zip(rows, weight.to_pylist()) if not is_null(value)]
        if not present:
            return None
        if kind == "map":
            entries = [(entries_of(value), w) for value, w in present]
            return [len(entries), total(len(e) for e, _ in entries), total(sum(len(k) for k, _ in e) * w for e, w in entries),
                    total(sum(len(v) for _, v in e if v is not None) * w for e, w in entries)]
        return [len(present), *(total(of(value) * w for value, w in present) for of in (
            lambda h: h["count"], lambda h: h["sum"] or 0.0, lambda h: len(",".join(str(int(n)) for n in h["counts"])),
            lambda h: len(h["bounds"])))]
    if isinstance(values, pyarrow.Array):
        values = pyarrow.chunked_array([values])
    count = len(values) - values.null_count
    if count == 0:
        return None
    if kind == "number":
        values = pc.cast(values, pyarrow.float64(), safe=False)
        weighed = pc.multiply(values, pc.cast(weight, pyarrow.float64()))
    elif kind == "text":
        values = pc.cast(values, pyarrow.string())
        weighed = pc.multiply(pc.cast(pc.utf8_length(values), pyarrow.int64()), weight)
    else:
        values = as_micros(values)
        weighed = pc.multiply(modulo(values), weight)
    edges = pc.min_max(values)
    distinct = pc.count_distinct(values, mode="only_valid").as_py()
    return [count, edges["min"].as_py(), edges["max"].as_py(), distinct, pc.sum(weighed).as_py()]


def is_null(value):
    """pandas has NaN where a map or a histogram is null."""
    return value is None or isinstance(value, float) and math.isnan(value)


def entries_of(value):
    """Keys and values of a map: a map, pairs, or rows of two columns, as readers give it."""
    if isinstance(value, dict):
        return list(value.items())
    return [tuple(entry.values()) if isinstance(entry, dict) else tuple(entry) for entry in value]


def total(numbers):
    return math.fsum(numbers)


def modulo(values):
    """Whole numbers of an array, not negative, modulo the prime."""
    return pc.subtract(values, pc.multiply(pc.divide(values, PRIME), PRIME))


def by_reader(get, kinds, time):
    """The numbers of each column, of `get(column)`."""
    weight = modulo(as_micros(get(time)))
    return {column: numbers_of(get(column), kind, weight) for column, kind in kinds.items()}


def of_frame(frame, kinds):
    """Columns of a pandas frame."""

    def get(column):
        if kinds[column] in ("map", "histogram"):
            return list(frame[column])
        return pyarrow.Array.from_pandas(frame[column])

    return get


def of_table(table):
    return lambda column: table[column].combine_chunks()


def readers_of(con, lake, table, kinds, schema):
    """(name, columns by name) of each reader."""
    path, names = f"{lake}/{table}", list(kinds)
    chosen = ", ".join(f'"{name}"' for name in names)
    pattern = f"{path}/date=*/*.parquet"
    for what, scan in (("DuckDB", f"read_parquet('{pattern}', hive_partitioning = true, union_by_name = true)"),
                       ("DuckDB's delta_scan", f"delta_scan('{path}')")):
        yield what, of_table(con.execute(f"SELECT {chosen} FROM {scan}").fetch_arrow_table())
    frame = polars.scan_parquet(pattern, hive_partitioning=True, missing_columns="insert", extra_columns="ignore",
                                schema=polars.DataFrame(schema.empty_table()).schema)
    yield "Polars", of_table(frame.select(names).collect().to_arrow())
    yield "Polars' read_delta", of_table(polars.read_delta(path).select(names).to_arrow())
    opened = deltalake.DeltaTable(path)
    yield "pyarrow", of_table(pyarrow.dataset.dataset(path, schema=schema, format="parquet", partitioning="hive").to_table(names))
    yield "deltalake", of_table(opened.to_pyarrow_table(columns=names))
    yield "pandas", of_frame(pandas.read_parquet(path, columns=names, schema=schema), kinds)
    yield "pandas through deltalake", of_frame(opened.to_pandas(columns=names), kinds)


def newest_by_duckdb(con, lake, table, columns):
    """How many windows README's query finds: the newest revision of each site and start, without the rows that say that nothing is left."""
    scan = f"read_parquet('{lake}/{table}/date=*/*.parquet', hive_partitioning = true, union_by_name = true)"
    newest = f"SELECT * FROM {scan} QUALIFY revision = max(revision) OVER (PARTITION BY site, window_start)"
    left = "WHERE emptied IS NOT TRUE" if "emptied" in columns else ""
    return con.execute(f"SELECT count(*) FROM ({newest}) {left}").fetchone()[0]


def same(ours, theirs):
    """Whether the numbers of a column are those of `airan query`."""
    if ours is None or theirs is None or len(ours) != len(theirs):
        return ours is None and theirs is None
    return all(a == b or (isinstance(a, (int, float)) and isinstance(b, (int, float)) and math.isclose(a, b, rel_tol=RELATIVE))
               for a, b in zip(ours, theirs))


def main(lake, airan, *arguments):
    query = Query(airan, arguments)
    con = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    con.execute(f"LOAD '{delta_extension()}'")
    con.execute("SET TimeZone = 'UTC'")
    folders = sorted({path.split("/")[-3] for path in glob.glob(f"{lake}/*/date=*/*.parquet")})
    failed, values = [], 0
    for table in folders:
        kinds = {row["column_name"]: kind_of(row["data_type"]) for row in query(f"DESCRIBE {table}")}
        time = "ts" if "ts" in kinds else "window_start"
        schema = pyarrow.unify_schemas([pyarrow.parquet.read_schema(path) for path in glob.glob(f"{lake}/{table}/date=*/*.parquet")])
        ours = by_airan(query, table, kinds, time)
        # Columns that no file has: airan says null of them.
        lost = [column for column in kinds if column not in schema.names and column != "date" and ours[column]]
        strange = [column for column in schema.names if column not in kinds]
        if lost or strange:
            failed.append(f"{table}: columns without a file {lost}, that airan does not have {strange}")
        kinds = {column: kind for column, kind in kinds.items() if column in schema.names}
        for what, get in readers_of(con, lake, table, kinds, schema):
            theirs = by_reader(get, kinds, time)
            differ = {column: (ours[column], theirs[column]) for column in kinds if not same(ours[column], theirs[column])}
            if differ:
                failed.append(f"{table}: {what}: airan, then theirs: {str(differ)[:2000]}")
            values += sum(numbers[0] for numbers in theirs.values() if numbers)
        if "revision" in kinds:
            [newest] = query(f"SELECT count(*) AS n FROM {table}_latest")
            if newest["n"] != (found := newest_by_duckdb(con, lake, table, schema.names)):
                failed.append(f"{table}: airan has {newest['n']} newest windows, DuckDB {found}")
        print(f"     {table}: {len(kinds)} columns, {ours[time][0]} rows")
    if failed or not folders:
        sys.exit("\n".join(["FAIL values differ", *failed]))
    print(f"ok   each of 8 ways of reading {len(folders)} tables gives the values of `airan query`: {values} values compared")


if __name__ == "__main__":
    main(*sys.argv[1:])
