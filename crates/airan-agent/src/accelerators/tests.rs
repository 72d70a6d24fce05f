//! Tools that misbehave, and the way of a look to the uplink.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use airan_decode::accelerators::{Entry, Xid};
use airan_model::catalog::Catalog;
use arrow::array::AsArray;

use super::*;

const SOON: Duration = Duration::from_secs(20);

/// A program of that name that runs `script`.
fn program(folder: &Path, name: &str, script: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

/// Scenario: an nvidia-smi that prints XML, that knows CSV alone, that finds no driver or no device, that breaks, prints garbage,
/// prints without end, hangs; and none at all.
/// Guarantees: what can be read is read; absence is told from failure; each answer comes in time.
#[test]
fn programs_of_every_kind_have_an_answer_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let xml =
        "<nvidia_smi_log><driver_version>1</driver_version><gpu id=\"0\"><uuid>GPU-x</uuid></gpu></nvidia_smi_log>";
    let look = |script: &str, within: Duration| {
        let path = program(folder.path(), "nvidia-smi", script);
        nvidia_smi(path.to_str().unwrap(), within)
    };
    let reading = look(&format!("echo '{xml}'"), SOON).unwrap();
    assert_eq!(reading.entries[0].device, "GPU-x");
    let csv = "case \"$1\" in -q) echo garbage;; --query-gpu=*) printf 'uuid, power.draw [W]\\nGPU-y, 5 W\\n';; esac";
    let reading = look(csv, SOON).unwrap();
    assert_eq!((reading.entries[0].device.as_str(), reading.entries[0].get("power_watts")), ("GPU-y", Some(5.0)));
    for absent in [
        "echo \"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\"; exit 9",
        "echo No devices were found; exit 6",
        "echo '<nvidia_smi_log></nvidia_smi_log>'",
    ] {
        assert!(matches!(look(absent, SOON), Err(SourceError::Absent(_))), "{absent}");
    }
    for (script, why) in [
        ("exit 3", "ended with Some(3)"),
        ("echo garbage", "ends early"),
        ("head -c 100000000 /dev/zero", "more than 8388608 bytes"),
    ] {
        let error = look(script, SOON).unwrap_err().to_string();
        assert!(error.contains(why), "{script}: {error}");
    }
    let begin = Instant::now();
    let error = look("sleep 600", Duration::from_millis(500)).unwrap_err().to_string();
    assert!(error.contains("did not end within") && begin.elapsed() < SOON, "{error}");
    let nowhere = folder.path().join("none");
    assert!(matches!(nvidia_smi(nowhere.to_str().unwrap(), SOON), Err(SourceError::Absent(_))));
    assert!(matches!(rocm_smi(nowhere.to_str().unwrap(), SOON), Err(SourceError::Absent(_))));
    let rocm = program(folder.path(), "rocm-smi", "echo WARNING: old; echo '{\"card0\": {\"PCI Bus\": \"0:1\"}}'");
    assert_eq!(rocm_smi(rocm.to_str().unwrap(), SOON).unwrap().entries[0].device, "0:1");
}

/// Scenario: an XID error with a code and one without.
#[test]
fn xid_errors_are_rows_of_the_stream_of_events() {
    let catalog = Catalog::builtin().unwrap();
    let stream = catalog.stream("event").unwrap();
    let xid = |code| Xid { at: 5, device: "GPU-1".into(), code };
    for (code, message) in [(Some(79), "XID 79 on GPU-1"), (None, "XID error without a code on GPU-1")] {
        let row = super::rows::event(&xid(code));
        assert!(row.texts.contains(&("message", message.to_owned())));
        assert_eq!(row.numbers, code.map(|code| ("code", code as f64)).into_iter().collect::<Vec<_>>());
        let rows = to_rows(stream, "edge-1", 5, None, &[row]).unwrap();
        stream.conform(&rows.rows).unwrap();
    }
}

/// Scenario: a look that gave a device, two XID errors and three more that were thrown away, and a field that could not be read.
/// Guarantees: device and errors are rows that wait for the uplink, each error at its own time; what is lost is counted.
#[tokio::test]
async fn what_a_look_gives_waits_for_the_uplink() {
    use crate::metrics::AgentMetrics;
    use crate::queue::{Portion, Queue};
    use crate::stamp::Stamp;
    use airan_model::identity::BatchId;

    let xid = |at| Xid { at, device: "GPU-1".into(), code: Some(79) };
    let entry = Entry { device: "GPU-1".into(), numbers: vec![("power_watts", 5.0)], ..Entry::default() };
    let look =
        Reading { entries: vec![entry], xids: vec![xid(5), xid(9)], xids_dropped: 3, unread: vec!["a=b".into()] };
    let metrics = Arc::new(AgentMetrics::new().unwrap());
    let limit = Portion { rows: 100, bytes: 1 << 20 };
    let shared = Arc::new(Shared {
        node: "edge-1".into(),
        catalog: Arc::new(Catalog::builtin().unwrap()),
        clock: Clock::system(),
        queue: Arc::new(Queue::new(limit, Arc::clone(&metrics))),
        metrics: Arc::clone(&metrics),
        stamp: Stamp::new(BatchId(7)),
        accelerators_scraped: Default::default(),
    });
    take(look, Origin::Nvml, Path::new("/nowhere"), &shared);
    assert_eq!(metrics.collected_rows.with_label_values(&[STREAM]).get(), 3);
    assert_eq!(metrics.queued_rows.get(), 3);
    assert_eq!((metrics.accelerator_events_dropped.get(), metrics.accelerator_unread.get()), (3, 1));
    assert_eq!(metrics.collections.with_label_values(&[STREAM, "success"]).get(), 1);
    let mut waiting = Vec::new();
    while let Some(lease) = shared.queue.lease(limit) {
        let rows = lease.first(lease.len());
        waiting.push((rows.stream.name.to_string(), rows.rows));
    }
    let events = &waiting.iter().find(|(stream, _)| stream == "event").unwrap().1;
    let times = events.column_by_name("ts").unwrap().as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    assert_eq!(times.values(), &[5, 9]);
    assert!(waiting.iter().any(|(stream, rows)| stream == STREAM && rows.num_rows() == 1));
}

/// Scenario: this machine, whose driver is whatever it is: NVML either has a device or is absent.
/// Guarantees: a missing library, driver or device is told as absence, and the thread goes on answering.
#[tokio::test]
async fn a_machine_without_nvml_is_no_failure() {
    let worker = Origin::Nvml.start(SOON).unwrap();
    for _ in 0..3 {
        match worker.read(SOON).await {
            Ok(reading) => assert!(reading.devices() > 0),
            Err(error) => assert!(matches!(error, SourceError::Absent(_)), "{error}"),
        }
    }
}
