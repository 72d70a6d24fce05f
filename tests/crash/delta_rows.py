"""What a foreign reader sees in a lake: the Delta tables by deltalake, and on a disk the files by a glob. (In a bucket files of writers
that were fenced may lie beside those that count, until they are vacuumed.)

usage: delta_rows.py LAKE_FOLDER
       delta_rows.py s3://BUCKET/LAKE ENDPOINT

Prints JSON: identities of the raw rows and keys of all windows, once by each way.
"""

import json
import sys

import deltalake
import pyarrow.dataset

RAW = ("accelerator", ["model"])
WINDOWS = ("crash_windows", ["window_start", "site", "node", "device", "revision"])


def rows(table):
    """Rows as texts, sorted, so that a doubled one shows."""
    columns = [column.cast("string").to_pylist() for column in table.columns]
    return sorted("|".join(str(value) for value in row) for row in zip(*columns))


def main(lake, endpoint=None):
    """Reads both tables in both ways."""
    options = endpoint and {
        "aws_endpoint": endpoint, "aws_region": "us-east-1", "aws_allow_http": "true",
        "aws_access_key_id": "test", "aws_secret_access_key": "test",
    }
    seen = {}
    for name, (table, columns) in {"rows": RAW, "windows": WINDOWS}.items():
        path = f"{lake}/{table}"
        opened = deltalake.DeltaTable(path, storage_options=options)
        seen[f"delta_{name}"] = rows(opened.to_pyarrow_dataset().to_table(columns=columns))
        if endpoint:
            continue
        files = pyarrow.dataset.dataset(path, format="parquet", partitioning="hive", exclude_invalid_files=False,
                                        ignore_prefixes=["_", "."])
        seen[f"files_{name}"] = rows(files.to_table(columns=columns))
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
