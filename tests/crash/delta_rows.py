"""What a foreign reader sees in a lake on the disk: the Delta tables by deltalake, the files by a glob.

usage: delta_rows.py LAKE_FOLDER

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


def main(lake):
    """Reads both tables in both ways."""
    seen = {}
    for name, (table, columns) in {"rows": RAW, "windows": WINDOWS}.items():
        path = f"{lake}/{table}"
        opened = deltalake.DeltaTable(path)
        seen[f"delta_{name}"] = rows(opened.to_pyarrow_dataset().to_table(columns=columns))
        files = pyarrow.dataset.dataset(path, format="parquet", partitioning="hive", exclude_invalid_files=False,
                                        ignore_prefixes=["_", "."])
        seen[f"files_{name}"] = rows(files.to_table(columns=columns))
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
