//! The output of `nvidia-smi -q -x`: devices, MIG slices and processes.
//!
//! Element names have changed with the drivers: `power_readings` became `gpu_power_readings`, throttle reasons became event
//! reasons, one power draw became an average and an instant one. All of them are known here; a name nobody knows is passed over.

use std::collections::HashMap;

use quick_xml::Reader;
use quick_xml::events::Event;

use super::OutputError;
use super::reading::{Entry, Process, Reading};
use super::value::{self, Kind, NoValue};

/// Deepest nesting; real output has 6 levels.
const DEPTH_MAX: usize = 16;

/// Most devices and slices of one host.
const ENTRIES_MAX: usize = 1024;

/// Most processes of one host.
const PROCESSES_MAX: usize = 16_384;

/// Where the numbers stand within a `gpu` element. Of several that fill one column the first that has a value counts.
const NUMBERS: &[(&str, &str, Kind)] = &[
    ("utilization/gpu_util", "utilization", Kind::Percent),
    ("utilization/memory_util", "memory_copy_utilization", Kind::Percent),
    ("utilization/encoder_util", "encoder_utilization", Kind::Percent),
    ("utilization/decoder_util", "decoder_utilization", Kind::Percent),
    ("utilization/jpeg_util", "jpeg_utilization", Kind::Percent),
    ("utilization/ofa_util", "optical_flow_utilization", Kind::Percent),
    ("encoder_stats/session_count", "encoder_sessions", Kind::Count),
    ("encoder_stats/average_fps", "encoder_frames_per_second", Kind::Count),
    ("encoder_stats/average_latency", "encoder_latency_seconds", Kind::Micros),
    ("fb_memory_usage/total", "memory_total_bytes", Kind::Bytes),
    ("fb_memory_usage/reserved", "memory_reserved_bytes", Kind::Bytes),
    ("fb_memory_usage/used", "memory_used_bytes", Kind::Bytes),
    ("fb_memory_usage/free", "memory_free_bytes", Kind::Bytes),
    // Before drivers of 2022 one draw; since then by name. What one draw is on a device that has both, is the average
    // (nvidia-smi --help-query-gpu, power.draw).
    ("power_readings/power_draw", "power_watts", Kind::Watts),
    ("gpu_power_readings/power_draw", "power_watts", Kind::Watts),
    ("gpu_power_readings/average_power_draw", "power_watts", Kind::Watts),
    ("gpu_power_readings/instant_power_draw", "power_watts", Kind::Watts),
    ("gpu_power_readings/average_power_draw", "power_average_watts", Kind::Watts),
    ("gpu_power_readings/instant_power_draw", "power_instant_watts", Kind::Watts),
    ("power_readings/enforced_power_limit", "power_limit_watts", Kind::Watts),
    ("gpu_power_readings/current_power_limit", "power_limit_watts", Kind::Watts),
    ("power_readings/power_limit", "power_limit_set_watts", Kind::Watts),
    ("gpu_power_readings/requested_power_limit", "power_limit_set_watts", Kind::Watts),
    ("power_readings/default_power_limit", "power_limit_default_watts", Kind::Watts),
    ("gpu_power_readings/default_power_limit", "power_limit_default_watts", Kind::Watts),
    ("power_readings/min_power_limit", "power_limit_min_watts", Kind::Watts),
    ("gpu_power_readings/min_power_limit", "power_limit_min_watts", Kind::Watts),
    ("power_readings/max_power_limit", "power_limit_max_watts", Kind::Watts),
    ("gpu_power_readings/max_power_limit", "power_limit_max_watts", Kind::Watts),
    ("temperature/gpu_temp", "temperature_celsius", Kind::Celsius),
    ("temperature/memory_temp", "memory_temperature_celsius", Kind::Celsius),
    ("temperature/gpu_temp_tlimit", "temperature_margin_celsius", Kind::Celsius),
    ("fan_speed", "fan_ratio", Kind::Percent),
    ("clocks/sm_clock", "sm_clock_hertz", Kind::Hertz),
    ("clocks/mem_clock", "memory_clock_hertz", Kind::Hertz),
    ("clocks/graphics_clock", "graphics_clock_hertz", Kind::Hertz),
    ("clocks/video_clock", "video_clock_hertz", Kind::Hertz),
    ("max_clocks/sm_clock", "sm_clock_max_hertz", Kind::Hertz),
    ("max_clocks/mem_clock", "memory_clock_max_hertz", Kind::Hertz),
    ("max_clocks/graphics_clock", "graphics_clock_max_hertz", Kind::Hertz),
    ("performance_state", "performance_state", Kind::PState),
    (
        "clocks_event_reasons_counters/clocks_event_reasons_counters_sw_power_cap",
        "power_throttle_seconds",
        Kind::Seconds,
    ),
    (
        "clocks_event_reasons_counters/clocks_event_reasons_counters_sync_boost",
        "sync_boost_throttle_seconds",
        Kind::Seconds,
    ),
    (
        "clocks_event_reasons_counters/clocks_event_reasons_counters_sw_therm_slowdown",
        "thermal_throttle_seconds",
        Kind::Seconds,
    ),
    (
        "clocks_event_reasons_counters/clocks_event_reasons_counters_hw_therm_slowdown",
        "hardware_thermal_throttle_seconds",
        Kind::Seconds,
    ),
    (
        "clocks_event_reasons_counters/clocks_event_reasons_counters_hw_power_brake",
        "power_brake_throttle_seconds",
        Kind::Seconds,
    ),
    ("pci/tx_util", "pcie_tx_bytes_per_second", Kind::BytesPerSecond),
    ("pci/rx_util", "pcie_rx_bytes_per_second", Kind::BytesPerSecond),
    ("pci/replay_counter", "pcie_replays", Kind::Count),
    ("pci/pci_gpu_link_info/pcie_gen/current_link_gen", "pcie_link_generation", Kind::Count),
    ("pci/pci_gpu_link_info/pcie_gen/max_link_gen", "pcie_link_generation_max", Kind::Count),
    ("pci/pci_gpu_link_info/link_widths/current_link_width", "pcie_link_width", Kind::Lanes),
    ("pci/pci_gpu_link_info/link_widths/max_link_width", "pcie_link_width_max", Kind::Lanes),
    ("retired_pages/multiple_single_bit_retirement/retired_count", "retired_pages_single_bit", Kind::Count),
    ("retired_pages/double_bit_retirement/retired_count", "retired_pages_double_bit", Kind::Count),
    ("remapped_rows/remapped_row_corr", "remapped_rows_correctable", Kind::Count),
    ("remapped_rows/remapped_row_unc", "remapped_rows_uncorrectable", Kind::Count),
    ("remapped_rows/remapped_row_pending", "row_remap_pending", Kind::YesNo),
    ("remapped_rows/remapped_row_failure", "row_remap_failure", Kind::YesNo),
    ("gpu_recovery_action", "recovery_action", Kind::Recovery),
    ("mig_mode/current_mig", "mig_mode", Kind::Mode),
    ("ecc_mode/current_ecc", "ecc_mode", Kind::Mode),
    ("persistence_mode", "persistence_mode", Kind::Mode),
    ("compute_mode", "compute_mode", Kind::ComputeMode),
];

/// Counts whose parts are added up: the device's memory, and its on-chip memories by the name each driver has.
const SUMS: &[(&str, &[&str])] = &[
    ("ecc_single_bit_errors", &["ecc_errors/volatile/sram_correctable", "ecc_errors/volatile/dram_correctable"]),
    (
        "ecc_double_bit_errors",
        &[
            "ecc_errors/volatile/sram_uncorrectable",
            "ecc_errors/volatile/sram_uncorrectable_parity",
            "ecc_errors/volatile/sram_uncorrectable_secded",
            "ecc_errors/volatile/dram_uncorrectable",
        ],
    ),
    (
        "ecc_single_bit_errors_lifetime",
        &["ecc_errors/aggregate/sram_correctable", "ecc_errors/aggregate/dram_correctable"],
    ),
    (
        "ecc_double_bit_errors_lifetime",
        &[
            "ecc_errors/aggregate/sram_uncorrectable",
            "ecc_errors/aggregate/sram_uncorrectable_parity",
            "ecc_errors/aggregate/sram_uncorrectable_secded",
            "ecc_errors/aggregate/dram_uncorrectable",
        ],
    ),
];

/// Bits of the mask that NVML has for the same reasons (`nvmlClocksEventReason*`).
const REASONS: [(&str, u32); 9] = [
    ("gpu_idle", 0x1),
    ("applications_clocks_setting", 0x2),
    ("sw_power_cap", 0x4),
    ("hw_slowdown", 0x8),
    ("sync_boost", 0x10),
    ("sw_thermal_slowdown", 0x20),
    ("hw_thermal_slowdown", 0x40),
    ("hw_power_brake_slowdown", 0x80),
    ("display_clocks_setting", 0x100),
];

/// Texts by their path within an element.
type Fields = HashMap<String, String>;

/// A `gpu` element.
#[derive(Debug, Default)]
struct Gpu {
    id: String,
    fields: Fields,
    slices: Vec<Fields>,
    processes: Vec<Fields>,
}

/// Reads the whole output.
///
/// # Errors
/// [`OutputError`], with the position, where it is no such document, ends early, or is larger than any host's.
pub fn read(text: &str) -> Result<Reading, OutputError> {
    let (driver, gpus) = parse(text)?;
    let mut reading = Reading::default();
    for (index, gpu) in gpus.iter().enumerate() {
        device(gpu, index, driver.as_deref(), &mut reading);
    }
    Ok(reading)
}

fn parse(text: &str) -> Result<(Option<String>, Vec<Gpu>), OutputError> {
    let mut xml = Reader::from_str(text);
    xml.config_mut().trim_text(true);
    let (mut path, mut gpus, mut driver): (Vec<String>, Vec<Gpu>, _) = (Vec::new(), Vec::new(), None);
    let (mut entries, mut processes, mut is_log) = (0, 0, false);
    loop {
        let failed = |why: &str, at: u64| OutputError(format!("nvidia-smi's XML, byte {at}: {why}"));
        let at = xml.buffer_position();
        match xml.read_event().map_err(|error| failed(&error.to_string(), at))? {
            Event::Start(element) => {
                let name = String::from_utf8_lossy(element.name().as_ref()).into_owned();
                match (path.len(), name.as_str()) {
                    (0, "nvidia_smi_log") => is_log = true,
                    (0, _) => return Err(failed("no nvidia_smi_log", at)),
                    (1, "gpu") => {
                        let id = element.try_get_attribute("id").ok().flatten();
                        let id = id.map(|id| String::from_utf8_lossy(&id.value).into_owned());
                        gpus.push(Gpu { id: id.unwrap_or_default(), ..Gpu::default() });
                        entries += 1;
                    }
                    // Hundreds of lines that say which clocks could be set.
                    (2, "supported_clocks") => {
                        let end = element.to_end().into_owned();
                        xml.read_to_end(end.name()).map_err(|error| failed(&error.to_string(), at))?;
                        continue;
                    }
                    (3, "mig_device") => {
                        if let Some(gpu) = gpus.last_mut() {
                            gpu.slices.push(Fields::new());
                        }
                        entries += 1;
                    }
                    (3, "process_info") => {
                        if let Some(gpu) = gpus.last_mut() {
                            gpu.processes.push(Fields::new());
                        }
                        processes += 1;
                    }
                    _ => {}
                }
                path.push(name);
                if path.len() > DEPTH_MAX || entries > ENTRIES_MAX || processes > PROCESSES_MAX {
                    return Err(failed("too deep, or too many devices or processes for one host", at));
                }
            }
            Event::End(_) => drop(path.pop()),
            Event::Text(words) => {
                let words = words.decode().map_err(|error| failed(&error.to_string(), at))?;
                if path.len() == 2 && path[1] == "driver_version" {
                    driver = value::text(&words).map(str::to_owned);
                } else if path.len() > 2
                    && let Some(gpu) = gpus.last_mut()
                {
                    let (fields, from) = match path.get(3).map(String::as_str) {
                        Some("mig_device") => (gpu.slices.last_mut(), 4),
                        Some("process_info") => (gpu.processes.last_mut(), 4),
                        _ => (Some(&mut gpu.fields), 2),
                    };
                    if let Some(fields) = fields {
                        fields.entry(path[from.min(path.len())..].join("/")).or_default().push_str(&words);
                    }
                }
            }
            Event::Eof if is_log && path.is_empty() => return Ok((driver, gpus)),
            Event::Eof => return Err(failed("it ends early", at)),
            _ => {}
        }
    }
}

fn device(gpu: &Gpu, index: usize, driver: Option<&str>, reading: &mut Reading) {
    let text = |path: &str| gpu.fields.get(path).and_then(|text| value::text(text));
    let device = text("uuid").unwrap_or(&gpu.id).to_owned();
    let mut entry = Entry { device: device.clone(), ..Entry::default() };
    for (path, column, kind) in NUMBERS {
        if entry.get(column).is_none() {
            entry.number(column, number(&gpu.fields, path, *kind, reading));
        }
    }
    for (column, parts) in SUMS {
        entry.number(column, sum(&gpu.fields, parts, reading));
    }
    entry.number("throttle_reasons", reasons(&gpu.fields, reading));
    entry.number("present", Some(1.0));
    entry.text("model", text("product_name"));
    entry.text("vendor", Some("NVIDIA"));
    entry.text("device_index", Some(index.to_string()));
    entry.text("pci_bus_id", text("pci/pci_bus_id"));
    entry.text("driver_version", driver);
    entry.text("firmware_version", text("vbios_version"));

    let with_slices = entry.get("mig_mode") == Some(1.0);
    let processes = gpu.processes.iter().filter_map(|fields| process(fields, reading)).collect::<Vec<_>>();
    let of = |slice: Option<&str>| {
        let of_slice = processes.iter().filter(|(instance, _)| instance.as_deref() == slice);
        of_slice.map(|(_, process)| process.clone()).collect::<Vec<_>>()
    };
    if !with_slices {
        entry.processes = of(None);
        let compute = entry.processes.iter().filter(|process| process.compute).count();
        // An empty element, or none that names a process: nvidia-smi says N/A where it does not know.
        let known = gpu.fields.get("processes").is_none_or(|text| value::text(text).is_some());
        entry.number("compute_processes", known.then_some(compute as f64));
    }
    let slices: Vec<Entry> = gpu.slices.iter().filter_map(|fields| slice(fields, &device, &of, reading)).collect();
    reading.entries.push(entry);
    for slice in slices {
        // Two compute instances of one GPU instance share its memory: one row.
        if !reading.entries.iter().any(|known| known.device == slice.device && known.slice == slice.slice) {
            reading.entries.push(slice);
        }
    }
}

fn slice(
    fields: &Fields,
    device: &str,
    processes: &dyn Fn(Option<&str>) -> Vec<Process>,
    reading: &mut Reading,
) -> Option<Entry> {
    let instance = fields.get("gpu_instance_id").and_then(|text| value::text(text))?;
    let mut entry = Entry { device: device.to_owned(), slice: Some(instance.to_owned()), ..Entry::default() };
    for (path, column) in [
        ("fb_memory_usage/total", "memory_total_bytes"),
        ("fb_memory_usage/reserved", "memory_reserved_bytes"),
        ("fb_memory_usage/used", "memory_used_bytes"),
        ("fb_memory_usage/free", "memory_free_bytes"),
    ] {
        entry.number(column, number(fields, path, Kind::Bytes, reading));
    }
    entry.number(
        "ecc_double_bit_errors",
        number(fields, "ecc_error_count/volatile_count/sram_uncorrectable", Kind::Count, reading),
    );
    entry.number("present", Some(1.0));
    entry.processes = processes(Some(instance));
    entry.number("compute_processes", Some(entry.processes.iter().filter(|process| process.compute).count() as f64));
    Some(entry)
}

fn process(fields: &Fields, reading: &mut Reading) -> Option<(Option<String>, Process)> {
    let text = |path: &str| fields.get(path).and_then(|text| value::text(text));
    let pid = text("pid")?.parse().ok()?;
    let memory = number(fields, "used_memory", Kind::Bytes, reading).map(|bytes| bytes as u64);
    let compute = text("type").is_some_and(|kinds| kinds.contains('C'));
    let process = Process { pid, name: text("process_name").map(str::to_owned), memory_bytes: memory, compute };
    Some((text("gpu_instance_id").map(str::to_owned), process))
}

fn number(fields: &Fields, path: &str, kind: Kind, reading: &mut Reading) -> Option<f64> {
    let text = fields.get(path)?;
    match value::number(text, kind) {
        Ok(value) => Some(value),
        Err(NoValue::Absent) => None,
        Err(NoValue::Unreadable) => {
            reading.not_read(path, text);
            None
        }
    }
}

fn sum(fields: &Fields, parts: &[&str], reading: &mut Reading) -> Option<f64> {
    parts.iter().filter_map(|part| number(fields, part, Kind::Count, reading)).reduce(|a, b| a + b)
}

/// The mask of throttle reasons, under the name of either time.
fn reasons(fields: &Fields, reading: &mut Reading) -> Option<f64> {
    let bits = REASONS.iter().filter_map(|(reason, bit)| {
        let paths = ["event", "throttle"].map(|word| format!("clocks_{word}_reasons/clocks_{word}_reason_{reason}"));
        let active = paths.iter().find_map(|path| number(fields, path, Kind::Active, reading))?;
        Some(if active > 0.0 { *bit } else { 0 })
    });
    bits.reduce(|a, b| a | b).map(f64::from)
}
