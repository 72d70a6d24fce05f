//! What NVML says about one device, in NVML's own units, and what becomes of it.

use airan_decode::accelerators::{Entry, Process};
use nvml_wrapper::enums::gpm::GpmMetricId;

/// A device, in the units of `nvml.h`. None: not supported by the device, not permitted, or an error of this one call.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Said {
    /// `nvmlDeviceGetUUID`.
    pub(crate) uuid: String,
    /// The driver has lost it: nothing is known of it but its identity.
    pub(crate) lost: bool,
    pub(crate) index: Option<u32>,
    pub(crate) name: Option<String>,
    pub(crate) pci_bus_id: Option<String>,
    pub(crate) driver_version: Option<String>,
    pub(crate) vbios_version: Option<String>,
    /// Percent: GPU, memory, encoder, decoder.
    pub(crate) utilization: [Option<u32>; 4],
    /// Sessions, frames a second, microseconds.
    pub(crate) encoder: Option<[u32; 3]>,
    /// Bytes: total, reserved, used, free (`nvmlDeviceGetMemoryInfo_v2`).
    pub(crate) memory: Option<[u64; 4]>,
    /// Milliwatts: draw, enforced limit, set limit, default limit, lowest and highest limit.
    pub(crate) power: [Option<u32>; 6],
    /// Millijoules since the driver was loaded.
    pub(crate) energy: Option<u64>,
    /// Degrees Celsius.
    pub(crate) temperature: Option<u32>,
    /// Percent of the most.
    pub(crate) fan: Option<u32>,
    /// Megahertz: SM, memory, graphics, video.
    pub(crate) clocks: [Option<u32>; 4],
    /// Megahertz: SM, memory, graphics.
    pub(crate) clocks_max: [Option<u32>; 3],
    /// Bits of `nvmlClocksEventReason*`.
    pub(crate) throttle_reasons: Option<u64>,
    /// 0 to 15.
    pub(crate) performance_state: Option<u32>,
    /// KB/s over 20 ms: sent, received.
    pub(crate) pcie: [Option<u32>; 2],
    pub(crate) pcie_replays: Option<u32>,
    /// Generation, most, lanes, most.
    pub(crate) pcie_link: [Option<u32>; 4],
    /// NVLinks that are up.
    pub(crate) nvlinks: Option<u32>,
    /// ECC errors: corrected and uncorrected since the driver was loaded, then in the device's life.
    pub(crate) ecc: [Option<u64>; 4],
    pub(crate) mig: Option<bool>,
    pub(crate) ecc_mode: Option<bool>,
    pub(crate) persistence: Option<bool>,
    /// `nvmlComputeMode_t`.
    pub(crate) compute_mode: Option<u32>,
    /// Of `nvmlDeviceGetFieldValues`, by the field's number.
    pub(crate) fields: Vec<(u32, f64)>,
    /// Of `nvmlGpmMetricsGet`, between the look before and this one.
    pub(crate) gpm: Vec<(GpmMetricId, f64)>,
    /// XID errors since this process listens, and the last one's code.
    pub(crate) xids: Option<(u64, u64)>,
    pub(crate) processes: Vec<Process>,
    /// Whether the driver told all processes.
    pub(crate) processes_known: bool,
    pub(crate) slices: Vec<SliceSaid>,
}

/// A MIG device: a compute instance of a GPU instance.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SliceSaid {
    /// `MIG-…`.
    pub(crate) uuid: String,
    /// The name of the parent and, after ` MIG `, the profile.
    pub(crate) name: Option<String>,
    /// Slices of the GPU instance, slices of the compute instance, memory in MB (`nvmlDeviceGetAttributes`).
    pub(crate) attributes: Option<(u32, u32, u64)>,
    /// Bytes: total, reserved, used, free; of the whole GPU instance.
    pub(crate) memory: Option<[u64; 4]>,
    pub(crate) processes: Vec<Process>,
    pub(crate) processes_known: bool,
}

/// Fields of `nvmlDeviceGetFieldValues` that are asked for: number (`NVML_FI_DEV_*`), column, factor to base units.
pub(crate) const FIELDS: &[(u32, &str, f64)] = &[
    // NVLINK_{CRC_FLIT,CRC_DATA,REPLAY,RECOVERY}_ERROR_COUNT_TOTAL
    (38, "nvlink_crc_flit_errors", 1.0),
    (45, "nvlink_crc_data_errors", 1.0),
    (52, "nvlink_replays", 1.0),
    (59, "nvlink_recoveries", 1.0),
    // RETIRED_{SBE,DBE,PENDING}
    (29, "retired_pages_single_bit", 1.0),
    (30, "retired_pages_double_bit", 1.0),
    (31, "retired_pages_pending", 1.0),
    // PERF_POLICY_*, nanoseconds
    (74, "power_throttle_seconds", 1e-9),
    (75, "thermal_throttle_seconds", 1e-9),
    (76, "sync_boost_throttle_seconds", 1e-9),
    (77, "board_limit_throttle_seconds", 1e-9),
    (78, "low_utilization_throttle_seconds", 1e-9),
    (79, "reliability_throttle_seconds", 1e-9),
    // MEMORY_TEMP
    (82, "memory_temperature_celsius", 1.0),
    // REMAPPED_{COR,UNC,PENDING,FAILURE}
    (142, "remapped_rows_correctable", 1.0),
    (143, "remapped_rows_uncorrectable", 1.0),
    (144, "row_remap_pending", 1.0),
    (145, "row_remap_failure", 1.0),
    // POWER_{AVERAGE,INSTANT}, milliwatts, scope 0: the GPU
    (185, "power_average_watts", 1e-3),
    (186, "power_instant_watts", 1e-3),
    // GET_GPU_RECOVERY_ACTION
    (230, "recovery_action", 1.0),
    // CLOCKS_EVENT_REASON_{HW_THERM,HW_POWER_BRAKE}_SLOWDOWN, nanoseconds
    (252, "hardware_thermal_throttle_seconds", 1e-9),
    (253, "power_brake_throttle_seconds", 1e-9),
];

/// NVLINK_THROUGHPUT_DATA_{TX,RX}: KiB since the driver was loaded, of the link that the field's scope names. The binding leaves the
/// scope at link 0, so they are asked only where that is the only one: of several, one would be taken for all.
pub(crate) const FIELDS_OF_ONE_LINK: &[(u32, &str, f64)] =
    &[(138, "nvlink_tx_bytes", 1024.0), (139, "nvlink_rx_bytes", 1024.0)];

/// Measures of GPM that are asked for, with the column and the factor to base units. `nvml.h` has shares in percent and what goes over
/// NVLink, all links together, in MiB a second.
pub(crate) const GPM: &[(GpmMetricId, &str, f64)] = &[
    (GpmMetricId::GraphicsUtil, "engine_active", 0.01),
    (GpmMetricId::SmUtil, "sm_active", 0.01),
    (GpmMetricId::SmOccupancy, "sm_occupancy", 0.01),
    (GpmMetricId::AnyTensorUtil, "tensor_active", 0.01),
    (GpmMetricId::DramBwUtil, "dram_active", 0.01),
    (GpmMetricId::Fp64Util, "fp64_active", 0.01),
    (GpmMetricId::Fp32Util, "fp32_active", 0.01),
    (GpmMetricId::Fp16Util, "fp16_active", 0.01),
    (GpmMetricId::NvlinkTotalTxPerSec, "nvlink_tx_bytes_per_second", 1_048_576.0),
    (GpmMetricId::NvlinkTotalRxPerSec, "nvlink_rx_bytes_per_second", 1_048_576.0),
];

/// NVML's KB, as NVIDIA's exporters take it.
const KB: f64 = 1_000.0;
const MHZ: f64 = 1e6;
const MILLI: f64 = 1e-3;

/// The rows of a device and its slices.
pub(crate) fn entries(said: &Said) -> Vec<Entry> {
    let mut entry = Entry { device: said.uuid.clone(), ..Entry::default() };
    identity(&mut entry, said);
    if said.lost {
        return vec![entry];
    }
    let [gpu, memory, encoder, decoder] = said.utilization;
    for (column, percent) in [
        ("utilization", gpu),
        ("memory_copy_utilization", memory),
        ("encoder_utilization", encoder),
        ("decoder_utilization", decoder),
        ("fan_ratio", said.fan),
    ] {
        entry.number(column, percent.map(|percent| f64::from(percent) / 100.0));
    }
    if let Some([sessions, frames, micros]) = said.encoder {
        entry.number("encoder_sessions", Some(f64::from(sessions)));
        entry.number("encoder_frames_per_second", Some(f64::from(frames)));
        entry.number("encoder_latency_seconds", Some(f64::from(micros) / 1e6));
    }
    memory_of(&mut entry, said.memory);
    scaled(&mut entry, MILLI, &POWER, &said.power);
    entry.number("energy_joules", said.energy.map(|millijoules| millijoules as f64 / 1e3));
    entry.number("temperature_celsius", said.temperature.map(f64::from));
    scaled(&mut entry, MHZ, &CLOCKS, &said.clocks);
    scaled(&mut entry, MHZ, &CLOCKS_MAX, &said.clocks_max);
    scaled(&mut entry, KB, &["pcie_tx_bytes_per_second", "pcie_rx_bytes_per_second"], &said.pcie);
    scaled(&mut entry, 1.0, &PCIE_LINK, &said.pcie_link);
    entry.number("pcie_replays", said.pcie_replays.map(f64::from));
    entry.number("nvlinks_up", said.nvlinks.map(f64::from));
    for (column, errors) in ECC.iter().zip(said.ecc) {
        entry.number(column, errors.map(|errors| errors as f64));
    }
    entry.number("throttle_reasons", said.throttle_reasons.map(|bits| bits as f64));
    entry.number("performance_state", said.performance_state.map(f64::from));
    for (column, on) in [("mig_mode", said.mig), ("ecc_mode", said.ecc_mode), ("persistence_mode", said.persistence)] {
        entry.number(column, on.map(|on| f64::from(u8::from(on))));
    }
    entry.number("compute_mode", said.compute_mode.map(f64::from));
    for (field, column, factor) in FIELDS.iter().chain(FIELDS_OF_ONE_LINK) {
        let value = said.fields.iter().find(|(number, _)| number == field).map(|(_, value)| value * factor);
        entry.number(column, value);
    }
    for (metric, column, factor) in GPM {
        let value = said.gpm.iter().find(|(of, _)| of == metric).map(|(_, value)| value * factor);
        entry.number(column, value);
    }
    if let Some((count, code)) = said.xids {
        entry.number("xid_errors", Some(count as f64));
        entry.number("xid_last_code", Some(code as f64));
    }
    // With MIG on, processes belong to slices.
    if said.mig != Some(true) {
        own(&mut entry, &said.processes, said.processes_known);
    }
    let mut entries = vec![entry];
    entries.extend(said.slices.iter().map(|slice| slice_entry(&said.uuid, slice)));
    entries
}

fn identity(entry: &mut Entry, said: &Said) {
    entry.number("present", Some(f64::from(u8::from(!said.lost))));
    entry.text("model", said.name.clone());
    entry.text("vendor", Some("NVIDIA"));
    entry.text("device_index", said.index.map(|index| index.to_string()));
    entry.text("pci_bus_id", said.pci_bus_id.clone());
    entry.text("driver_version", said.driver_version.clone());
    entry.text("firmware_version", said.vbios_version.clone());
}

const POWER: [&str; 6] = [
    "power_watts",
    "power_limit_watts",
    "power_limit_set_watts",
    "power_limit_default_watts",
    "power_limit_min_watts",
    "power_limit_max_watts",
];
const CLOCKS: [&str; 4] = ["sm_clock_hertz", "memory_clock_hertz", "graphics_clock_hertz", "video_clock_hertz"];
const CLOCKS_MAX: [&str; 3] = ["sm_clock_max_hertz", "memory_clock_max_hertz", "graphics_clock_max_hertz"];
const PCIE_LINK: [&str; 4] =
    ["pcie_link_generation", "pcie_link_generation_max", "pcie_link_width", "pcie_link_width_max"];
const ECC: [&str; 4] = [
    "ecc_single_bit_errors",
    "ecc_double_bit_errors",
    "ecc_single_bit_errors_lifetime",
    "ecc_double_bit_errors_lifetime",
];

fn scaled(entry: &mut Entry, factor: f64, columns: &[&'static str], values: &[Option<u32>]) {
    for (column, value) in columns.iter().zip(values) {
        entry.number(column, value.map(|value| f64::from(value) * factor));
    }
}

fn memory_of(entry: &mut Entry, memory: Option<[u64; 4]>) {
    let columns = ["memory_total_bytes", "memory_reserved_bytes", "memory_used_bytes", "memory_free_bytes"];
    for (column, bytes) in columns.into_iter().zip(memory.into_iter().flatten()) {
        entry.number(column, Some(bytes as f64));
    }
}

fn own(entry: &mut Entry, processes: &[Process], known: bool) {
    entry.processes = processes.to_vec();
    let compute = processes.iter().filter(|process| process.compute).count();
    entry.number("compute_processes", known.then_some(compute as f64));
}

/// A slice goes by its own UUID: NVML's number of the GPU instance is not in the binding.
///
/// Its memory is that of its GPU instance. Where the compute instance is only a part of that, others may share it, and each would
/// count it again: then it is left out.
fn slice_entry(device: &str, said: &SliceSaid) -> Entry {
    let mut entry = Entry { device: device.to_owned(), slice: Some(said.uuid.clone()), ..Entry::default() };
    let alone = said.attributes.is_none_or(|(instance, compute, _)| compute >= instance);
    memory_of(&mut entry, said.memory.filter(|_| alone));
    entry.number("present", Some(1.0));
    entry.text("slice_uuid", Some(said.uuid.clone()));
    entry.text("slice_profile", profile(said));
    entry.text("vendor", Some("NVIDIA"));
    own(&mut entry, &said.processes, said.processes_known);
    entry
}

/// `1g.5gb` or `1c.3g.20gb`: out of the name, or else out of the attributes, as NVIDIA's k8s-device-plugin makes it.
fn profile(said: &SliceSaid) -> Option<String> {
    if let Some((_, profile)) = said.name.as_deref().and_then(|name| name.split_once(" MIG ")) {
        return Some(profile.trim().to_owned());
    }
    let (instance, compute, megabytes) = said.attributes?;
    let gigabytes = megabytes.div_ceil(1024);
    Some(match compute < instance {
        true => format!("{compute}c.{instance}g.{gigabytes}gb"),
        false => format!("{instance}g.{gigabytes}gb"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device made from the documented names and units of nvml.h: no machine with a GPU was at hand.
    fn said() -> Said {
        Said {
            uuid: "GPU-1".into(),
            index: Some(2),
            name: Some("NVIDIA A100-SXM4-40GB".into()),
            utilization: [Some(40), Some(7), None, Some(0)],
            encoder: Some([1, 30, 2_500]),
            memory: Some([42_949_672_960, 500_000_000, 2_000_000_000, 40_449_672_960]),
            power: [Some(67_030), Some(400_000), None, None, Some(100_000), None],
            energy: Some(123_456_789),
            temperature: Some(41),
            clocks: [Some(1_410), Some(1_215), None, None],
            throttle_reasons: Some(0x104),
            performance_state: Some(0),
            pcie: [Some(4_000), Some(12)],
            pcie_replays: Some(3),
            nvlinks: Some(12),
            ecc: [Some(5), Some(0), None, None],
            mig: Some(false),
            fields: vec![(74, 2.5e9), (82, 38.0), (186, 68_000.0), (143, 1.0), (9_999, 7.0)],
            xids: Some((2, 79)),
            processes: vec![
                Process { pid: 1, compute: true, ..Process::default() },
                Process { pid: 2, ..Process::default() },
            ],
            processes_known: true,
            ..Said::default()
        }
    }

    /// Scenario: a device with most of what NVML knows.
    /// Guarantees: base units; what was not said is no number.
    #[test]
    fn what_nvml_says_becomes_columns_in_base_units() {
        let entries = entries(&said());
        let entry = &entries[0];
        assert_eq!((entries.len(), entry.device.as_str(), &entry.slice), (1, "GPU-1", &None));
        for (column, value) in [
            ("utilization", 0.4),
            ("memory_copy_utilization", 0.07),
            ("encoder_latency_seconds", 0.0025),
            ("memory_used_bytes", 2e9),
            ("power_watts", 67.03),
            ("power_limit_watts", 400.0),
            ("energy_joules", 123_456.789),
            ("temperature_celsius", 41.0),
            ("sm_clock_hertz", 1.41e9),
            ("throttle_reasons", 260.0),
            ("pcie_tx_bytes_per_second", 4e6),
            ("pcie_replays", 3.0),
            ("nvlinks_up", 12.0),
            ("ecc_single_bit_errors", 5.0),
            ("power_throttle_seconds", 2.5),
            ("memory_temperature_celsius", 38.0),
            ("power_instant_watts", 68.0),
            ("remapped_rows_uncorrectable", 1.0),
            ("xid_errors", 2.0),
            ("xid_last_code", 79.0),
            ("compute_processes", 1.0),
            ("mig_mode", 0.0),
        ] {
            let read = entry.get(column).unwrap_or(f64::NAN);
            assert!((read - value).abs() <= value.abs() * 1e-12, "{column}: {read}");
        }
        for none in ["encoder_utilization", "power_limit_set_watts", "graphics_clock_hertz", "ecc_mode", "fan_ratio"] {
            assert_eq!(entry.get(none), None, "{none}");
        }
        let names: Vec<_> = entry.numbers.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), names.iter().collect::<std::collections::HashSet<_>>().len(), "a column twice");
    }

    /// Scenario: MIG on, a slice of its own and two compute instances of another GPU instance.
    /// Guarantees: parent and slices are told apart; processes are the slice's; shared memory is not counted twice.
    #[test]
    fn slices_are_told_from_their_parent_and_share_no_memory() {
        let slice = |uuid: &str, name: Option<&str>, attributes| SliceSaid {
            uuid: uuid.into(),
            name: name.map(Into::into),
            attributes: Some(attributes),
            memory: Some([5, 0, 1, 4]),
            processes: vec![Process { pid: 7, compute: true, ..Process::default() }],
            processes_known: true,
        };
        let slices = vec![
            slice("MIG-a", Some("NVIDIA A100-SXM4-40GB MIG 1g.5gb"), (1, 1, 4_864)),
            slice("MIG-b", None, (3, 1, 19_968)),
            slice("MIG-c", None, (3, 3, 19_968)),
        ];
        let entries = entries(&Said { mig: Some(true), slices, ..said() });
        let text = |entry: &Entry, column: &str| {
            entry.texts.iter().find(|(name, _)| *name == column).map(|(_, text)| text.clone())
        };
        assert!(entries[0].slice.is_none() && entries[0].processes.is_empty());
        assert_eq!(entries[0].get("compute_processes"), None, "with MIG on they belong to the slices");
        let seen: Vec<_> = entries[1..]
            .iter()
            .map(|entry| {
                assert_eq!((entry.device.as_str(), entry.get("compute_processes")), ("GPU-1", Some(1.0)));
                (entry.slice.clone().unwrap(), text(entry, "slice_profile").unwrap(), entry.get("memory_used_bytes"))
            })
            .collect();
        let expected = [("MIG-a", "1g.5gb", Some(1.0)), ("MIG-b", "1c.3g.20gb", None), ("MIG-c", "3g.20gb", Some(1.0))];
        assert_eq!(seen, expected.map(|(uuid, profile, used)| (uuid.to_owned(), profile.to_owned(), used)));
    }
}
