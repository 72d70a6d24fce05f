//! The lake: Parquet files, commit records, shard state and SQL over them.
