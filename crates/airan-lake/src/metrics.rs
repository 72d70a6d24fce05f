//! What the lake counts about itself.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, IntGaugeVec, Opts, Registry};

/// Counters of one process's writing to a lake. The binary owns the registry.
#[derive(Clone, Debug)]
pub struct LakeMetrics {
    /// Commits whose record exists.
    pub commits: IntCounter,
    /// Attempts at a commit that ended in an error the shard retries.
    pub commit_failures: IntCounter,
    /// Commits given up because another claim had taken the shard (K2).
    pub fenced: IntCounter,
    /// Claims of shards.
    pub claims: IntCounter,
    /// Parquet files written by commits.
    pub files: IntCounter,
    /// Rows in them.
    pub rows: IntCounter,
    /// Bytes of them.
    pub bytes: IntCounter,
    /// From the start of a successful attempt at a commit to its record, with encoding, in seconds.
    pub commit_seconds: Histogram,
    /// Files taken out by retention.
    pub expired_files: IntCounter,
    /// Bytes taken out by retention.
    pub expired_bytes: IntCounter,
    /// Files of dead claims removed.
    pub orphans: IntCounter,
    /// Files that Delta names since this process published them.
    pub published_files: IntCounter,
    /// Tables that a pass could not publish.
    pub publish_failures: IntCounter,
    /// Commit records trimmed after their files were published.
    pub trimmed_records: IntCounter,
    /// Merges of small files into one.
    pub compactions: IntCounter,
    /// Files that went into them.
    pub compacted_files: IntCounter,
    /// Bytes of those.
    pub compacted_bytes: IntCounter,
    /// Bytes of the files made of them.
    pub compacted_bytes_out: IntCounter,
    /// Tables that a pass could not compact.
    pub compact_failures: IntCounter,
    /// Duration of a merge, from reading its files to the Delta commit, in seconds.
    pub compact_seconds: Histogram,
    /// Age of the oldest commit with a file that Delta does not name yet, seconds; of the last pass of this process.
    pub publish_lag_seconds: IntGauge,
    /// Files that count, by table. This and the next two are of the last pass of publishing, and only of the elected process.
    pub table_files: IntGaugeVec,
    /// Bytes of them, by table.
    pub table_bytes: IntGaugeVec,
    /// Newest version of the Delta log, by table.
    pub delta_version: IntGaugeVec,
}

impl LakeMetrics {
    /// All at zero.
    ///
    /// # Errors
    /// Never in practice: the names are fixed and valid.
    pub fn new() -> Result<LakeMetrics, prometheus::Error> {
        let buckets = vec![0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
        Ok(LakeMetrics {
            commits: IntCounter::new("airan_lake_commits_total", "Commits whose record exists.")?,
            commit_failures: IntCounter::new(
                "airan_lake_commit_failures_total",
                "Attempts at a commit that failed and are retried.",
            )?,
            fenced: IntCounter::new(
                "airan_lake_fenced_total",
                "Commits given up because another claim had taken the shard.",
            )?,
            claims: IntCounter::new("airan_lake_claims_total", "Claims of shards.")?,
            files: IntCounter::new("airan_lake_files_total", "Parquet files written by commits.")?,
            rows: IntCounter::new("airan_lake_rows_total", "Rows written by commits.")?,
            bytes: IntCounter::new("airan_lake_bytes_total", "Bytes of Parquet written by commits.")?,
            commit_seconds: Histogram::with_opts(
                HistogramOpts::new("airan_lake_commit_seconds", "Duration of successful commits, with encoding.")
                    .buckets(buckets),
            )?,
            expired_files: IntCounter::new("airan_lake_expired_files_total", "Files taken out by retention.")?,
            expired_bytes: IntCounter::new("airan_lake_expired_bytes_total", "Bytes taken out by retention.")?,
            orphans: IntCounter::new("airan_lake_orphans_total", "Files of dead claims removed.")?,
            published_files: IntCounter::new("airan_lake_published_files_total", "Files published to Delta.")?,
            publish_failures: IntCounter::new(
                "airan_lake_publish_failures_total",
                "Tables that could not be published and are tried again.",
            )?,
            trimmed_records: IntCounter::new(
                "airan_lake_trimmed_records_total",
                "Commit records trimmed after their files were published.",
            )?,
            compactions: IntCounter::new("airan_lake_compactions_total", "Merges of small files into one.")?,
            compacted_files: IntCounter::new("airan_lake_compacted_files_total", "Files that went into merges.")?,
            compacted_bytes: IntCounter::new("airan_lake_compacted_bytes_total", "Bytes that went into merges.")?,
            compacted_bytes_out: IntCounter::new(
                "airan_lake_compacted_written_bytes_total",
                "Bytes of the files made by merges.",
            )?,
            compact_failures: IntCounter::new(
                "airan_lake_compact_failures_total",
                "Tables that could not be compacted and are tried again.",
            )?,
            compact_seconds: Histogram::with_opts(
                HistogramOpts::new("airan_lake_compact_seconds", "Duration of a merge of files.")
                    .buckets(vec![0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0]),
            )?,
            publish_lag_seconds: IntGauge::new(
                "airan_lake_publish_lag_seconds",
                "Age of the oldest commit with a file that is not in Delta yet.",
            )?,
            table_files: by_table("airan_lake_table_files", "Files of the table that count.")?,
            table_bytes: by_table("airan_lake_table_bytes", "Bytes of the table's files that count.")?,
            delta_version: by_table("airan_lake_delta_version", "Newest version of the table's Delta log.")?,
        })
    }

    /// Takes the gauges of the whole lake down: another process is elected to know them.
    pub fn withdraw(&self) {
        self.publish_lag_seconds.set(0);
        for gauge in [&self.table_files, &self.table_bytes, &self.delta_version] {
            gauge.reset();
        }
    }

    /// Adds all to `registry`.
    ///
    /// # Errors
    /// If one of the names is in it already.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let counters = [
            &self.commits,
            &self.commit_failures,
            &self.fenced,
            &self.claims,
            &self.files,
            &self.rows,
            &self.bytes,
            &self.expired_files,
            &self.expired_bytes,
            &self.orphans,
            &self.published_files,
            &self.publish_failures,
            &self.trimmed_records,
            &self.compactions,
            &self.compacted_files,
            &self.compacted_bytes,
            &self.compacted_bytes_out,
            &self.compact_failures,
        ];
        for counter in counters {
            registry.register(Box::new(counter.clone()))?;
        }
        registry.register(Box::new(self.compact_seconds.clone()))?;
        registry.register(Box::new(self.publish_lag_seconds.clone()))?;
        for gauge in [&self.table_files, &self.table_bytes, &self.delta_version] {
            registry.register(Box::new(gauge.clone()))?;
        }
        registry.register(Box::new(self.commit_seconds.clone()))
    }
}

fn by_table(name: &str, help: &str) -> Result<IntGaugeVec, prometheus::Error> {
    IntGaugeVec::new(Opts::new(name, help), &["table"])
}
