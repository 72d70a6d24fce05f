//! A log as release 1 wrote it, kept as files in `tests/fixtures/v1/log`.
//!
//! It was made by `cargo test --release -p airan -p airan-log --lib -- --ignored write_the_log_of_this_release`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Log, NewRecord, Options, Repair};

const OPTIONS: Options = Options { segment_bytes: 1024, next_at_least: 0 };
/// Records in the fixture.
const RECORDS: u64 = 20;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/v1/log")
}

fn body(offset: u64) -> Vec<u8> {
    format!("record {offset} ").repeat(1 + offset as usize % 9).into_bytes()
}

fn append(log: &Log, offset: u64) {
    let payload = body(offset);
    let given = log.append(&[NewRecord { time: offset as i64 * 1_000, head: b"head ", payload: &payload }]);
    assert_eq!(given.unwrap(), offset..offset + 1);
}

#[test]
#[ignore = "writes tests/fixtures/v1/log"]
fn write_the_log_of_this_release() {
    let _ = fs::remove_dir_all(fixture());
    let (log, _) = Log::open(&fixture(), OPTIONS).unwrap();
    (0..RECORDS).for_each(|offset| append(&log, offset));
}

/// Scenario: the segments of release 1.
/// Guarantees: this release opens them without a repair, reads every record with its offset and time, and appends to them.
#[test]
fn the_log_of_release_1_goes_on() {
    let temp = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, temp.path().join(path.file_name().unwrap())).unwrap();
    }
    let (log, repair) = Log::open(temp.path(), OPTIONS).unwrap();
    assert_eq!((repair, log.first(), log.next()), (Repair::default(), 0, RECORDS));
    append(&log, RECORDS);
    let mut at = 0;
    while at < log.next() {
        let batch = log.read(at, 1 << 20).unwrap();
        assert_eq!(batch.lost, 0);
        for record in batch.records {
            assert_eq!(record.body, [b"head ", &body(record.offset)[..]].concat());
            assert_eq!((record.offset, record.time), (at, record.offset as i64 * 1_000));
            at = record.offset + 1;
        }
    }
    assert_eq!(at, RECORDS + 1);
}
