use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::disk::Step;

const OPTIONS: Options = Options { segment_bytes: 4096, next_at_least: 0 };
const KEEP_ALL: Retention = Retention { oldest: i64::MIN, max_bytes: u64::MAX, needed: u64::MAX };

fn open(folder: &Path) -> (Log, Repair) {
    Log::open(folder, OPTIONS).unwrap()
}

fn append(log: &Log, bodies: &[Vec<u8>]) -> Range<u64> {
    let time = log.next() as i64;
    let records: Vec<_> =
        bodies.iter().zip(time..).map(|(body, time)| NewRecord { time, head: &[], payload: body }).collect();
    log.append(&records).unwrap()
}

/// Everything from `from` on, in reads of `max_bytes`, and how many records were lost.
fn read_all(log: &Log, from: u64, max_bytes: usize) -> (Vec<(u64, Vec<u8>)>, u64) {
    let (mut records, mut lost, mut next) = (Vec::new(), 0, from);
    while next < log.next() {
        let batch = log.read(next, max_bytes).unwrap();
        assert!(batch.next > next, "a read goes on");
        lost += batch.lost;
        next = batch.next;
        records.extend(batch.records.into_iter().map(|record| (record.offset, record.body.to_vec())));
    }
    (records, lost)
}

fn segment_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// A log of `count` small records in one segment.
fn small(count: usize) -> (TempDir, Vec<Vec<u8>>) {
    let folder = TempDir::new().unwrap();
    let bodies: Vec<Vec<u8>> = (0..count).map(|n| format!("record {n}").into_bytes()).collect();
    let (log, _) = open(folder.path());
    append(&log, &bodies);
    (folder, bodies)
}

fn bodies() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1500), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Scenario: batches of records of any size, with the log opened again between some of them; read from any offset with any
    /// bound.
    /// Guarantees: every record is there once, in order, at the offset it was given.
    #[test]
    fn what_was_appended_is_read_from_any_offset(
        batches in prop::collection::vec((bodies(), any::<bool>()), 0..10),
        from in 0.0..1.0f64,
        max_bytes in 0..10_000usize,
    ) {
        let folder = TempDir::new().unwrap();
        let (mut log, _) = open(folder.path());
        let mut all = Vec::new();
        for (bodies, reopen) in batches {
            let offsets = append(&log, &bodies);
            prop_assert_eq!(offsets, all.len() as u64..(all.len() + bodies.len()) as u64);
            all.extend(bodies);
            if reopen {
                drop(log);
                let opened = open(folder.path());
                prop_assert_eq!(opened.1, Repair::default());
                log = opened.0;
            }
        }
        prop_assert_eq!((log.first(), log.next()), (0, all.len() as u64));
        prop_assert_eq!(log.last_time(), (all.len() as i64).checked_sub(1).filter(|time| *time >= 0));
        let from = (from * all.len() as f64) as u64;
        let wanted: Vec<_> = (0u64..).zip(all).skip(from as usize).collect();
        prop_assert_eq!(read_all(&log, from, max_bytes), (wanted, 0));
        let on_disk: u64 = segment_files(folder.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        prop_assert_eq!(log.bytes(), on_disk);
    }

    /// Scenario: one byte anywhere in any segment is changed; then the log is opened and written to again.
    /// Guarantees: L2, L3; at most one record is missing and counted or cut off, and new records get new offsets.
    #[test]
    fn a_changed_byte_costs_at_most_its_own_record(
        batches in prop::collection::vec(bodies(), 1..8),
        place in 0.0..1.0f64,
        change in 1..=255u8,
    ) {
        let folder = TempDir::new().unwrap();
        let (log, _) = open(folder.path());
        batches.iter().for_each(|bodies| { append(&log, bodies); });
        let before = log.next();
        drop(log);
        let files = segment_files(folder.path());
        let sizes: Vec<u64> = files.iter().map(|path| fs::metadata(path).unwrap().len()).collect();
        let mut at = (place * sizes.iter().sum::<u64>() as f64) as u64;
        let file = sizes.iter().position(|size| { let is_here = at < *size; if !is_here { at -= size; } is_here }).unwrap();
        let file = File::options().read(true).write(true).open(&files[file]).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ change], at).unwrap();

        let (log, repair) = open(folder.path());
        prop_assert_eq!(log.next(), before, "offsets stay");
        let all: Vec<_> = (0u64..).zip(batches.into_iter().flatten()).collect();
        let (mut left, lost) = read_all(&log, 0, 1000);
        let missing: Vec<_> = all.iter().filter(|record| !left.contains(record)).collect();
        prop_assert!(missing.len() <= 1 && left.iter().all(|record| all.contains(record)));
        prop_assert_eq!(lost + u64::from(repair.cut_bytes > 0), missing.len() as u64);
        append(&log, &[b"new".to_vec()]);
        left.push((before, b"new".to_vec()));
        prop_assert_eq!(read_all(&log, 0, 1000).0, left);
    }
}

/// Scenario: the last segment ends after each of its bytes, as a power loss might leave it, and the log is then used again.
/// Guarantees: whole records are all there, the rest is cut off, and appending and opening go on.
#[test]
fn a_tail_torn_at_any_byte_is_cut_at_the_last_whole_record() {
    let (folder, bodies) = small(4);
    let whole = fs::read(&segment_files(folder.path())[0]).unwrap();
    let ends: Vec<usize> = (0..=4)
        .map(|n| SEGMENT_HEADER + bodies[..n].iter().map(|body| RECORD_OVERHEAD + body.len()).sum::<usize>())
        .collect();
    for length in 0..=whole.len() {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join(crate::segment::file_name(0)), &whole[..length]).unwrap();
        let count = ends.iter().filter(|end| **end <= length).count().saturating_sub(1);
        let torn = length.saturating_sub(ends[count]) as u64;
        let (log, repair) = open(folder.path());
        assert_eq!(repair.cut_bytes, torn, "length {length}");
        let mut wanted: Vec<_> = (0u64..).zip(bodies[..count].iter().cloned()).collect();
        assert_eq!(read_all(&log, 0, 100), (wanted.clone(), 0), "length {length}");
        let next = append(&log, &[b"after".to_vec()]).start;
        assert_eq!(next, count as u64 + u64::from(torn > 0), "length {length}");
        wanted.push((next, b"after".to_vec()));
        drop(log);
        let (log, repair) = open(folder.path());
        assert_eq!((repair, read_all(&log, 0, 100)), (Repair::default(), (wanted, 0)), "length {length}");
    }
}

/// Scenario: the bytes of the newest records are zero where the file system had written the length but not the data.
#[test]
fn zeros_at_the_end_are_cut_off() {
    let (folder, bodies) = small(2);
    let path = &segment_files(folder.path())[0];
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() + 5000).unwrap();
    let (log, repair) = open(folder.path());
    assert_eq!(repair, Repair { cut_bytes: 5000, damaged: 0, skipped_offsets: 1 });
    assert_eq!(read_all(&log, 0, 100).0, (0u64..).zip(bodies).collect::<Vec<_>>());
}

/// Scenario: a reader is known to have read more than the files hold, as after the loss of unsynced data.
/// Guarantees: L3.
#[test]
fn an_offset_known_to_have_been_read_is_not_given_again() {
    let (folder, _) = small(2);
    let (log, repair) = Log::open(folder.path(), Options { next_at_least: 7, ..OPTIONS }).unwrap();
    assert_eq!((log.next(), repair.skipped_offsets), (7, 5));
    assert_eq!(append(&log, &[b"x".to_vec()]), 7..8);
    let (records, lost) = read_all(&log, 0, 1);
    assert_eq!((records.last().unwrap().0, records.len(), lost), (7, 3, 0));
}

/// Scenario: reads outside the log.
#[test]
fn an_offset_outside_the_log_is_told_with_its_bounds() {
    let (folder, _) = small(2);
    let (log, _) = open(folder.path());
    let Err(ReadError::OutOfRange { wanted, first, next }) = log.read(3, 1) else { panic!("read") };
    assert_eq!((wanted, first, next), (3, 0, 2));
    assert_eq!(log.read(2, 1).unwrap(), Batch { next: 2, ..Batch::default() });
}

/// Scenario: a segment that says it is of a later format.
#[test]
fn a_newer_format_is_refused_by_name() {
    let (folder, _) = small(1);
    let path = &segment_files(folder.path())[0];
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut header = [0; SEGMENT_HEADER];
    file.read_exact_at(&mut header, 0).unwrap();
    header[8] = 9;
    let sum = crc32fast::hash(&header[..28]);
    header[28..].copy_from_slice(&sum.to_le_bytes());
    file.write_all_at(&header, 0).unwrap();
    let error = Log::open(folder.path(), OPTIONS).unwrap_err();
    assert!(matches!(error, OpenError::Version { found: 9, known: 1, .. }), "{error}");
    assert!(error.to_string().contains("version 9"));
}

/// Scenario: ten segments of records; retention by age, by bytes, and with a reader far behind.
/// Guarantees: L4; the oldest go first, and reading from the new first offset works.
#[test]
fn retention_never_removes_what_is_still_needed() {
    let folder = TempDir::new().unwrap();
    let (log, _) = open(folder.path());
    for _ in 0..100 {
        append(&log, &[vec![7; 400]]);
    }
    let segments = segment_files(folder.path()).len();
    assert!(segments >= 10);
    assert_eq!(log.expire(KEEP_ALL).unwrap(), Expired::default());

    let expired = log.expire(Retention { oldest: i64::MAX, max_bytes: 0, needed: 35 }).unwrap();
    assert!(expired.segments > 0 && log.first() <= 35 && log.first() > 20, "{expired:?} {}", log.first());
    assert!(log.read(35, 1).is_ok() && log.read(log.first() - 1, 1).is_err());

    let first = log.first();
    log.expire(Retention { oldest: 60, max_bytes: u64::MAX, needed: u64::MAX }).unwrap();
    assert!(log.first() > first && log.first() <= 60, "{}", log.first());
    assert_eq!(read_all(&log, 60, 1000).0.len(), 40);

    log.expire(Retention { oldest: i64::MIN, max_bytes: 9000, needed: u64::MAX }).unwrap();
    assert!(log.bytes() <= 9000);
    let on_disk: u64 = segment_files(folder.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert_eq!(log.bytes(), on_disk);

    // All read and all old: what is being written to goes too, and the offsets go on.
    log.expire(Retention { oldest: i64::MAX, max_bytes: u64::MAX, needed: 100 }).unwrap();
    assert_eq!((log.first(), log.next(), segment_files(folder.path()).len()), (100, 100, 1));
    drop(log);
    let (log, _) = open(folder.path());
    assert_eq!(append(&log, &[b"x".to_vec()]), 100..101);
}

/// Scenario: the steps on disk while a log begins, grows over a segment, and is opened again.
/// Guarantees: L1; a segment and its name are on disk before records go in, and records before `append` returns.
#[test]
fn files_and_names_are_synced_before_an_append_returns() {
    let folder = TempDir::new().unwrap();
    let steps = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&steps);
    let watch: crate::disk::Watch = Arc::new(move |step| {
        seen.lock().unwrap().push(step);
        Ok(())
    });
    let disk = Disk { watch: Some(watch), ..Disk::default() };
    let (log, _) = Log::open_on(disk, &folder.path().join("new"), OPTIONS).unwrap();
    // The folders above are there and synced all the same; how many there are is the machine's matter.
    let above = |step: &Step| *step == Step::SyncFolder;
    let begun: Vec<Step> = std::mem::take(&mut *steps.lock().unwrap()).into_iter().skip_while(above).collect();
    let made = [Step::CreateFolder, Step::SyncFolder];
    let segment = [Step::Create, Step::Write, Step::SyncData, Step::SyncFolder];
    assert_eq!(begun, [&made[..], &segment].concat());
    append(&log, &[vec![0; 1000], vec![0; 1000], vec![0; 1000]]);
    assert_eq!(std::mem::take(&mut *steps.lock().unwrap()), [Step::Write, Step::SyncData], "one sync for a batch");
    append(&log, &[vec![0; 1000]]);
    let rolled = [Step::Create, Step::Write, Step::SyncData, Step::SyncFolder, Step::Write, Step::SyncData];
    assert_eq!(std::mem::take(&mut *steps.lock().unwrap()), rolled);
}

/// A log whose disk fails at the next steps of one kind, once the switch is on.
fn failing(folder: &Path, at: &'static [Step], kind: io::ErrorKind) -> (Log, Arc<AtomicBool>) {
    let switch = Arc::new(AtomicBool::new(false));
    let on = Arc::clone(&switch);
    let watch: crate::disk::Watch = Arc::new(move |step| match on.load(Ordering::SeqCst) && at.contains(&step) {
        true => Err(kind.into()),
        false => Ok(()),
    });
    (Log::open_on(Disk { watch: Some(watch), ..Disk::default() }, folder, OPTIONS).unwrap().0, switch)
}

fn try_append(log: &Log) -> Result<Range<u64>, AppendError> {
    log.append(&[NewRecord { time: 0, head: b"h", payload: b"p" }])
}

/// Scenario: the disk is full, then has room again.
/// Guarantees: nothing of a failed append is there, and the next one goes on without a gap.
#[test]
fn a_full_disk_loses_nothing_and_is_told() {
    let folder = TempDir::new().unwrap();
    let (log, switch) = failing(folder.path(), &[Step::Write], io::ErrorKind::StorageFull);
    assert_eq!(try_append(&log).unwrap(), 0..1);
    switch.store(true, Ordering::SeqCst);
    assert!(matches!(try_append(&log), Err(AppendError::DiskFull(_))));
    assert_eq!(read_all(&log, 0, 100).0.len(), 1);
    switch.store(false, Ordering::SeqCst);
    assert_eq!(try_append(&log).unwrap(), 1..2);
    drop(log);
    let (log, repair) = open(folder.path());
    assert_eq!((repair, read_all(&log, 0, 100).0.len()), (Repair::default(), 2));
}

/// Scenario: a sync fails, and so may the cut after it; the disk then works again.
/// Guarantees: the outcome is told as unknown, the record is not readable in this process, and its offset is not given again.
#[test]
fn after_a_failed_sync_the_offset_is_not_given_again() {
    for steps in [&[Step::SyncData][..], &[Step::SyncData, Step::Cut]] {
        let folder = TempDir::new().unwrap();
        let (log, switch) = failing(folder.path(), steps, io::ErrorKind::Other);
        try_append(&log).unwrap();
        switch.store(true, Ordering::SeqCst);
        assert!(matches!(try_append(&log), Err(AppendError::Unknown(_))));
        assert!(matches!(try_append(&log), Err(AppendError::NotWritten(_))), "no new segment without a sync");
        assert_eq!(read_all(&log, 0, 100).0.len(), 1);
        switch.store(false, Ordering::SeqCst);
        assert_eq!(try_append(&log).unwrap(), 2..3);
        drop(log);
        let (log, _) = open(folder.path());
        let offsets: Vec<u64> = read_all(&log, 0, 100).0.into_iter().map(|(offset, _)| offset).collect();
        assert!(offsets == [0, 2] || offsets == [0, 1, 2], "{offsets:?}");
        assert_eq!(log.next(), 3);
    }
}

/// Scenario: a record over the limit between two that are not.
/// Guarantees: all or none.
#[test]
fn a_record_over_the_limit_is_refused_with_its_batch() {
    let folder = TempDir::new().unwrap();
    let (log, _) = open(folder.path());
    let large = vec![0; BODY_MAX];
    let small = NewRecord { time: 0, head: b"h", payload: b"" };
    let refused = log.append(&[small, NewRecord { payload: &large, ..small }]);
    assert!(matches!(refused, Err(AppendError::TooLarge { limit: BODY_MAX, .. })));
    assert_eq!(log.next(), 0);
}

/// Scenario: a writer and a reader at once, over many segments.
/// Guarantees: the reader sees every record once and in order, and never one that is not there yet.
#[test]
fn a_reader_beside_a_writer_sees_every_record_once() {
    let folder = TempDir::new().unwrap();
    let (log, _) = open(folder.path());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..300u32 {
                append(&log, &[n.to_le_bytes().repeat(20)]);
            }
        });
        let (mut next, deadline) = (0, std::time::Instant::now() + std::time::Duration::from_secs(30));
        while next < 300 {
            assert!(std::time::Instant::now() < deadline, "the reader is stuck at {next}");
            let batch = log.read(next, 300).unwrap();
            for record in &batch.records {
                assert_eq!((record.offset, &record.body[..4]), (next, &(next as u32).to_le_bytes()[..]));
                next += 1;
            }
            assert_eq!((batch.next, batch.lost), (next, 0));
        }
    });
}
