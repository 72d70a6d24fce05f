use std::sync::Arc;

use airan_lake::{Commit, LakeSettings, TableKind, TableRows};
use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};

use super::*;
use crate::testing_bus::MemoryBus;

async fn lake(folder: &std::path::Path) -> Lake {
    let settings = LakeSettings {
        path: folder.display().to_string(),
        options: Default::default(),
        raw_retention: "7d".parse().unwrap(),
        window_retention: "400d".parse().unwrap(),
        max_bytes: None,
        checkpoint_interval: 100,
        compaction: airan_lake::CompactionSettings {
            on: true,
            every: "10m".parse().unwrap(),
            target_bytes: "256MiB".parse().unwrap(),
            min_files: 8,
        },
    };
    Lake::open(&settings, Clock::fixed(0)).await.unwrap()
}

fn maintenance(lake: &Lake, partitions: i32) -> Maintenance {
    let board = Board::default();
    let metrics = Arc::new(ProcessorMetrics::new(board.clone(), Clock::fixed(0)).unwrap());
    let bus = Arc::new(MemoryBus::new(partitions));
    Maintenance { bus, lake: lake.clone(), board, clock: Clock::fixed(0), metrics, waits: None }
}

fn is(maintenance: &Maintenance, status: Status) {
    maintenance.board.update(ELECTED_BY, |report| report.status = status);
}

/// One row of ten days ago.
fn commit(needed_from: Option<Micros>) -> Commit {
    let at = TimestampMicrosecondArray::from(vec![-10 * airan_model::time::DAY]).with_timezone("UTC");
    let columns: [(&str, ArrayRef); 2] = [("ts", Arc::new(at)), ("site", Arc::new(StringArray::from(vec!["s"])))];
    let rows = TableRows {
        table: "t".to_owned(),
        kind: TableKind::Raw,
        batches: vec![RecordBatch::try_from_iter(columns).unwrap()],
        sort_by: vec!["site".to_owned()],
        time_column: "ts",
        bloom: Vec::new(),
    };
    Commit { next_offset: 1, tables: vec![rows], state: "state".into(), needed_from }
}

/// Scenario: a processor without partition 0, then while it claims it, then owning it, then without it again.
/// Guarantees: it publishes only while it owns the shard of partition 0, and then its gauges tell of the lake.
#[tokio::test]
async fn only_the_owner_of_partition_0_publishes() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(folder.path()).await;
    let mut writer = lake.claim("memory", 0, 1).await.unwrap().0;
    writer.commit(&commit(None)).await.unwrap();
    let (mut of, shutdown) = (maintenance(&lake, 1), CancellationToken::new());
    let is_published = || folder.path().join("t/_delta_log").exists();
    of.publish(&shutdown).await;
    is(&of, Status::Starting);
    of.publish(&shutdown).await;
    of.retain(&shutdown).await;
    assert!(!is_published());
    is(&of, Status::Running);
    of.publish(&shutdown).await;
    assert!(is_published());
    assert_eq!(lake.metrics().table_files.with_label_values(&["t"]).get(), 1);
    of.board.remove(ELECTED_BY);
    of.publish(&shutdown).await;
    assert_eq!(prometheus::core::Collector::collect(&lake.metrics().table_files)[0].get_metric().len(), 0);
}

/// Scenario: two small files of a day that is over, in a processor without partition 0, then in its owner.
/// Guarantees: the owner merges them, and only it; the rows are the same.
#[tokio::test]
async fn only_the_owner_of_partition_0_compacts() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(folder.path()).await;
    let mut writer = lake.claim("memory", 0, 1).await.unwrap().0;
    for next_offset in [1, 2] {
        writer.commit(&Commit { next_offset, ..commit(None) }).await.unwrap();
    }
    let (of, shutdown) = (maintenance(&lake, 1), CancellationToken::new());
    of.compact(&shutdown).await;
    assert_eq!(lake.files("t").await.unwrap().len(), 2);
    is(&of, Status::Running);
    of.compact(&shutdown).await;
    let files = lake.files("t").await.unwrap();
    assert_eq!((files.len(), files[0].rows, lake.metrics().compactions.get()), (1, 2, 1));
}

/// Scenario: retention with a shard that has not committed, then with what its commits say they need.
/// Guarantees: nothing goes before every shard has committed, wherever they are owned; then what is needed stays, and what is
/// old and needed by nobody goes.
#[tokio::test]
async fn retention_waits_for_every_shard_and_spares_what_they_need() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(folder.path()).await;
    let (mut of, shutdown) = (maintenance(&lake, 2), CancellationToken::new());
    is(&of, Status::Running);
    let mut writers = [lake.claim("memory", 0, 2).await.unwrap().0, lake.claim("memory", 1, 2).await.unwrap().0];
    writers[0].commit(&commit(Some(0))).await.unwrap();
    of.retain(&shutdown).await;
    assert_eq!((of.metrics.retention_skipped.get(), lake.files("t").await.unwrap().len()), (1, 1));
    // The second still needs what is ten days old.
    writers[1].commit(&commit(Some(-10 * airan_model::time::DAY))).await.unwrap();
    of.retain(&shutdown).await;
    assert_eq!(lake.files("t").await.unwrap().len(), 2);
    let later = Commit { next_offset: 2, tables: Vec::new(), state: "later".into(), needed_from: Some(Micros::MAX) };
    writers[1].commit(&later).await.unwrap();
    of.retain(&shutdown).await;
    assert_eq!(lake.files("t").await.unwrap().len(), 0);
    assert_eq!((of.metrics.retention_skipped.get(), of.metrics.retention_failures.get()), (1, 0));
}

/// Scenario: the partition is revoked in the middle of a pass; a pass takes longer than it may; the process stops.
/// Guarantees: the pass is dropped, soon after the loss, at its deadline, at once.
#[tokio::test(start_paused = true)]
async fn a_pass_ends_with_the_election_the_deadline_and_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(folder.path()).await;
    let (of, shutdown) = (maintenance(&lake, 1), CancellationToken::new());
    is(&of, Status::Running);
    let start = tokio::time::Instant::now();
    let endless = || of.while_elected(Duration::from_secs(60), &shutdown, std::future::pending::<()>());
    assert_eq!(endless().await, None);
    assert_eq!(start.elapsed(), Duration::from_secs(60));
    let board = of.board.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        board.remove(ELECTED_BY);
    });
    assert_eq!(endless().await, None);
    assert_eq!(start.elapsed(), Duration::from_secs(63));
    is(&of, Status::Running);
    shutdown.cancel();
    assert_eq!(endless().await, None);
    assert_eq!(start.elapsed(), Duration::from_secs(63));
    assert_eq!(of.while_elected(Duration::from_secs(60), &CancellationToken::new(), async { 7 }).await, Some(7));
}
