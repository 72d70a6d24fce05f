//! The reader of NVML against a stand-in for the library (`nvml_stand_in.c`): made of the documentation of `nvml.h`, no driver, no
//! device. It shows that calls, layouts and units fit each other and what becomes of every kind of refusal; not what a real driver
//! answers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use airan_decode::accelerators::{Entry, Xid};

use super::testing::{assert_conform, text};
use super::worker::{SourceError, Worker};
use super::*;

const SOON: Duration = Duration::from_secs(20);

/// Compiles the stand-in, as one of its variants.
fn library(folder: &Path, variant: Option<&str>) -> PathBuf {
    let path = folder.join(format!("{}.so", variant.unwrap_or("whole")));
    let mut compiler = Command::new("cc");
    compiler.args(["-std=c11", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Werror", "-shared", "-fPIC"]);
    compiler.arg("-fvisibility=hidden").args(variant.map(|variant| format!("-D{variant}")));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/accelerators/nvml_stand_in.c");
    let printed = compiler.arg("-o").arg(&path).arg(source).output().unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    path
}

/// The thread that reads, as [`Origin::start`] makes it but for the library's name.
fn reader(library: PathBuf) -> Worker {
    Worker::start("airan-nvml", move |requests| nvml::serve(library.as_os_str(), &requests, &Clock::system())).unwrap()
}

/// Guarantees: exactly these numbers, within rounding, and none besides.
fn assert_exactly(entry: &Entry, expected: &[(&'static str, f64)]) {
    let read: BTreeMap<_, _> = entry.numbers.iter().copied().collect();
    let expected: BTreeMap<_, _> = expected.iter().copied().collect();
    for (column, value) in &expected {
        let read = read.get(column).copied().unwrap_or(f64::NAN);
        assert!((read - value).abs() <= value.abs() * 1e-12, "{column} of {}: {read}, and not {value}", entry.device);
    }
    let names = |of: &BTreeMap<&'static str, f64>| of.keys().copied().collect::<Vec<_>>();
    assert_eq!(names(&read), names(&expected), "{}", entry.device);
}

const WHOLE: &[(&str, f64)] = &[
    ("present", 1.0),
    ("utilization", 0.40),
    ("memory_copy_utilization", 0.07),
    ("encoder_utilization", 0.11),
    ("decoder_utilization", 0.12),
    ("encoder_sessions", 1.0),
    ("encoder_frames_per_second", 30.0),
    ("encoder_latency_seconds", 0.0025),
    ("memory_total_bytes", 80e9),
    ("memory_reserved_bytes", 500e6),
    ("memory_used_bytes", 2e9),
    ("memory_free_bytes", 77.5e9),
    ("power_watts", 67.03),
    ("power_limit_watts", 700.0),
    ("power_limit_set_watts", 650.0),
    ("power_limit_default_watts", 700.0),
    ("power_limit_min_watts", 200.0),
    ("power_limit_max_watts", 700.0),
    ("energy_joules", 123_456_789.012),
    ("temperature_celsius", 41.0),
    ("sm_clock_hertz", 1_975e6),
    ("memory_clock_hertz", 2_619e6),
    ("graphics_clock_hertz", 1_980e6),
    ("video_clock_hertz", 1_545e6),
    ("sm_clock_max_hertz", 2_000e6),
    ("memory_clock_max_hertz", 2_620e6),
    ("graphics_clock_max_hertz", 2_010e6),
    ("throttle_reasons", 260.0),
    ("performance_state", 2.0),
    ("pcie_tx_bytes_per_second", 4e6),
    ("pcie_rx_bytes_per_second", 12e3),
    ("pcie_replays", 3.0),
    ("pcie_link_generation", 4.0),
    ("pcie_link_generation_max", 5.0),
    ("pcie_link_width", 8.0),
    ("pcie_link_width_max", 16.0),
    ("nvlinks_up", 3.0),
    ("nvlink_crc_flit_errors", 4.0),
    ("ecc_single_bit_errors", 1.0),
    ("ecc_double_bit_errors", 2.0),
    ("ecc_single_bit_errors_lifetime", 11.0),
    ("ecc_double_bit_errors_lifetime", 12.0),
    ("mig_mode", 0.0),
    ("ecc_mode", 1.0),
    ("persistence_mode", 1.0),
    ("compute_mode", 3.0),
    ("power_throttle_seconds", 2.5),
    ("memory_temperature_celsius", 48.0),
    ("remapped_rows_uncorrectable", 1.0),
    ("power_instant_watts", 68.0),
    ("recovery_action", 1.0),
    ("hardware_thermal_throttle_seconds", 3.0),
    ("compute_processes", 2.0),
];

/// What the second look has besides: 100.5 and 200 MiB/s over NVLink.
const MEASURED: &[(&str, f64)] = &[
    ("engine_active", 0.9),
    ("sm_active", 0.725),
    ("sm_occupancy", 0.3),
    ("tensor_active", 0.55),
    ("dram_active", 0.61),
    ("fp16_active", 0.0),
    ("nvlink_tx_bytes_per_second", 105_381_888.0),
    ("nvlink_rx_bytes_per_second", 209_715_200.0),
];

const CUT: &[(&str, f64)] = &[
    ("utilization", f64::NAN),
    ("memory_copy_utilization", f64::NAN),
    ("encoder_utilization", f64::NAN),
    ("decoder_utilization", f64::NAN),
    ("encoder_sessions", f64::NAN),
    ("encoder_frames_per_second", f64::NAN),
    ("encoder_latency_seconds", f64::NAN),
    ("power_watts", 250.0),
    ("power_limit_watts", 400.0),
    ("power_limit_set_watts", 400.0),
    ("power_limit_default_watts", 400.0),
    ("energy_joules", 5.0),
    ("temperature_celsius", 42.0),
    ("throttle_reasons", 0.0),
    ("performance_state", 0.0),
    ("pcie_replays", 0.0),
    ("pcie_link_generation", 5.0),
    ("pcie_link_width", 16.0),
    ("nvlinks_up", f64::NAN),
    ("mig_mode", 1.0),
    ("persistence_mode", 0.0),
    ("compute_mode", 0.0),
    ("compute_processes", f64::NAN),
];

/// `of`, with the values of `but` instead; NaN says that there is none.
fn with(of: &[(&'static str, f64)], but: &[(&'static str, f64)]) -> Vec<(&'static str, f64)> {
    let mut values: BTreeMap<_, _> = of.iter().copied().collect();
    values.extend(but.iter().copied());
    values.into_iter().filter(|(_, value)| !value.is_nan()).collect()
}

/// Scenario: a machine with a device that answers everything, one cut by MIG, and a small one that supports little; two looks.
/// Guarantees: every value in its column and base unit. What is not supported is null and never 0: NVLink's bytes where the driver
/// would give one link's, XID errors of a device that tells none. Slices are told from their parent; GPM needs two looks.
#[tokio::test]
async fn a_machine_is_read_as_its_table_says() {
    let folder = tempfile::tempdir().unwrap();
    let reader = reader(library(folder.path(), None));
    let xids = [("xid_errors", 0.0), ("xid_last_code", 0.0)];
    let small = [
        ("present", 1.0),
        ("temperature_celsius", 43.0),
        ("fan_ratio", 0.30),
        ("nvlinks_up", 1.0),
        ("nvlink_tx_bytes", 1_024_000.0),
        ("nvlink_rx_bytes", 2_048_000.0),
    ];
    let slice = |used: f64, free: f64, processes: f64| {
        [
            ("present", 1.0),
            ("memory_total_bytes", 10e9),
            ("memory_reserved_bytes", 500e6),
            ("memory_used_bytes", used),
            ("memory_free_bytes", free),
            ("compute_processes", processes),
        ]
    };
    let first = reader.read(SOON).await.unwrap();
    assert_conform(&first);
    let seen: Vec<_> = first.entries.iter().map(|entry| (entry.device.as_str(), entry.slice.as_deref())).collect();
    assert_eq!(
        seen,
        [
            ("GPU-stand-in-0", None),
            ("GPU-stand-in-1", None),
            ("GPU-stand-in-1", Some("MIG-stand-in-0")),
            ("GPU-stand-in-1", Some("MIG-stand-in-2")),
            ("GPU-stand-in-2", None),
        ]
    );
    let [whole, cut, slice_0, slice_2, last] = &first.entries[..] else { unreachable!() };
    assert_exactly(whole, &with(WHOLE, &xids));
    assert_exactly(cut, &with(&with(WHOLE, &xids), CUT));
    assert_exactly(slice_0, &slice(1e9, 8.5e9, 0.0));
    assert_exactly(slice_2, &slice(3e9, 6.5e9, 1.0));
    assert_exactly(last, &small);
    let processes: Vec<_> = whole.processes.iter().map(|p| (p.pid, p.memory_bytes, p.compute)).collect();
    let mib = 1_500_000_000;
    assert_eq!(
        processes,
        [(4_294_967_290, Some(mib), true), (4_294_967_291, None, true), (4_294_967_293, Some(2_000), false)]
    );
    assert_eq!(slice_2.processes.len(), 1);
    for (column, value) in [
        ("model", "Stand-in"),
        ("vendor", "NVIDIA"),
        ("device_index", "0"),
        ("pci_bus_id", "00000000:1B:00.0"),
        ("driver_version", "580.95.05"),
        ("firmware_version", "96.00.A5.00.01"),
    ] {
        assert_eq!(text(whole, column), Some(value), "{column}");
    }
    assert_eq!((text(last, "firmware_version"), text(last, "device_index")), (None, Some("2")));
    assert_eq!(
        (text(slice_0, "slice_profile"), text(slice_0, "slice_uuid")),
        (Some("1g.10gb"), Some("MIG-stand-in-0"))
    );

    // From here on one sample of GPM is held from look to look: the stand-in refuses a third at once.
    for _ in 0..4 {
        let look = reader.read(SOON).await.unwrap();
        assert_conform(&look);
        let [whole, .., last] = &look.entries[..] else { unreachable!() };
        let xids = ["xid_errors", "xid_last_code"].map(|column| (column, whole.get(column).unwrap()));
        assert_exactly(whole, &with(&with(WHOLE, MEASURED), &xids));
        assert_exactly(last, &small);
    }
}

/// Scenario: two XID errors between looks, the second without a code.
/// Guarantees: each is told once, at its time, and counted at its device.
#[tokio::test]
async fn xid_errors_come_once_and_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let reader = reader(library(folder.path(), None));
    let end = Instant::now() + SOON;
    let mut told: Vec<Xid> = Vec::new();
    while told.len() < 2 {
        assert!(Instant::now() < end, "{told:?}");
        told.extend(reader.read(SOON).await.unwrap().xids);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let look = reader.read(SOON).await.unwrap();
    assert_eq!(look.xids, []);
    assert_eq!(told.iter().map(|xid| xid.code).collect::<Vec<_>>(), [Some(79), None]);
    assert!(told.iter().all(|xid| xid.device == "GPU-stand-in-0" && xid.at > 0));
    let counted: Vec<_> = look.entries.iter().map(|of| (of.get("xid_errors"), of.get("xid_last_code"))).collect();
    let none = (None, None);
    assert_eq!(counted, [(Some(2.0), Some(79.0)), (Some(0.0), Some(0.0)), none, none, none]);
}

/// Scenario: a device that is lost in the middle of a look; others are well.
/// Guarantees: its row says that it is not there and nothing that was said before; the others are as ever.
#[tokio::test]
async fn a_device_that_is_lost_keeps_its_identity_alone() {
    let folder = tempfile::tempdir().unwrap();
    let look = reader(library(folder.path(), Some("LOSES_A_DEVICE"))).read(SOON).await.unwrap();
    assert_conform(&look);
    assert_eq!(look.entries.len(), 5);
    assert_exactly(&look.entries[0], &[("present", 0.0)]);
    assert_eq!(look.entries[0].device, "GPU-stand-in-0");
    assert_eq!(text(&look.entries[0], "pci_bus_id"), Some("00000000:1B:00.0"));
    assert!(look.entries[0].processes.is_empty());
    let xids = [("xid_errors", 0.0), ("xid_last_code", 0.0)];
    assert_exactly(&look.entries[1], &with(&with(WHOLE, &xids), CUT));
}

/// Scenario: the library of an old driver (418): no functions of later ones, fields by their numbers of then.
/// Guarantees: what those functions would say is null, the rest is there; listening for XID errors ends and says so, reading goes on.
#[tokio::test]
async fn an_old_library_says_what_it_knows() {
    let folder = tempfile::tempdir().unwrap();
    let reader = reader(library(folder.path(), Some("OLD")));
    let later = ["memory_total_bytes", "memory_reserved_bytes", "memory_used_bytes", "memory_free_bytes", "mig_mode"];
    let mut without: Vec<_> = later.iter().map(|column| (*column, f64::NAN)).collect();
    without.push(("compute_processes", f64::NAN));
    let end = Instant::now() + SOON;
    loop {
        let look = reader.read(SOON).await.unwrap();
        assert_conform(&look);
        assert_eq!(look.entries.len(), 3, "slices are not known");
        let heard = look.entries[0].get("xid_errors").is_some();
        if !heard {
            assert_exactly(&look.entries[0], &with(WHOLE, &without));
            assert_eq!(text(&look.entries[0], "driver_version"), Some("418.226.00"));
            return;
        }
        assert!(Instant::now() < end, "it goes on listening");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Scenario: no library, a file that is none, one that lacks nearly every function, no driver behind it, one of another version than
/// its driver.
/// Guarantees: what is not there is told as absence, what does not work as failure, each with the reason; the thread goes on.
#[tokio::test]
async fn libraries_that_are_of_no_use_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none.so");
    let words = folder.path().join("words.so");
    std::fs::write(&words, "no library").unwrap();
    for (library, absent, why) in [
        (none, true, "none.so"),
        (words, true, "words.so"),
        (library(folder.path(), Some("BARE")), true, "nvmlDeviceGetCount_v2"),
        (library(folder.path(), Some("WITHOUT_DRIVER")), true, "driver"),
        (library(folder.path(), Some("MISMATCH")), false, "version"),
    ] {
        let reader = reader(library.clone());
        for _ in 0..2 {
            let error = reader.read(SOON).await.unwrap_err();
            assert_eq!(matches!(error, SourceError::Absent(_)), absent, "{}: {error:?}", library.display());
            assert!(error.to_string().contains(why), "{}: {error}", library.display());
        }
    }
}
