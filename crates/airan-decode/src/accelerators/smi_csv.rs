//! The output of `nvidia-smi --query-gpu=… --format=csv`: one line a device, no slices, no processes.
//!
//! The header says which fields there are, with their units (`memory.total [MiB]`), so any list of fields is understood.

use super::OutputError;
use super::reading::{Entry, Reading};
use super::value::{self, Kind, NoValue};

/// What is asked for: fields that drivers have had since 2017, because one that a driver does not know spoils the whole answer.
pub const QUERY: &str = "--query-gpu=index,uuid,name,pci.bus_id,driver_version,vbios_version,pstate,utilization.gpu,\
utilization.memory,memory.total,memory.used,memory.free,power.draw,power.limit,enforced.power.limit,power.default_limit,\
power.min_limit,power.max_limit,temperature.gpu,fan.speed,clocks.current.graphics,clocks.current.sm,clocks.current.memory,\
clocks.current.video,clocks.max.graphics,clocks.max.sm,clocks.max.memory,pcie.link.gen.current,pcie.link.gen.max,\
pcie.link.width.current,pcie.link.width.max,ecc.mode.current,ecc.errors.corrected.volatile.total,\
ecc.errors.uncorrected.volatile.total,ecc.errors.corrected.aggregate.total,ecc.errors.uncorrected.aggregate.total,\
retired_pages.single_bit_ecc.count,retired_pages.double_bit.count,persistence_mode,compute_mode,encoder.stats.sessionCount,\
encoder.stats.averageFps,encoder.stats.averageLatency";

/// Most fields of one line; nvidia-smi 590 has 212.
const FIELDS_MAX: usize = 1024;

/// Most devices of one host.
const DEVICES_MAX: usize = 256;

const NUMBERS: &[(&str, &str, Kind)] = &[
    ("utilization.gpu", "utilization", Kind::Percent),
    ("utilization.memory", "memory_copy_utilization", Kind::Percent),
    ("utilization.encoder", "encoder_utilization", Kind::Percent),
    ("utilization.decoder", "decoder_utilization", Kind::Percent),
    ("utilization.jpeg", "jpeg_utilization", Kind::Percent),
    ("utilization.ofa", "optical_flow_utilization", Kind::Percent),
    ("encoder.stats.sessionCount", "encoder_sessions", Kind::Count),
    ("encoder.stats.averageFps", "encoder_frames_per_second", Kind::Count),
    ("encoder.stats.averageLatency", "encoder_latency_seconds", Kind::Micros),
    ("memory.total", "memory_total_bytes", Kind::Bytes),
    ("memory.reserved", "memory_reserved_bytes", Kind::Bytes),
    ("memory.used", "memory_used_bytes", Kind::Bytes),
    ("memory.free", "memory_free_bytes", Kind::Bytes),
    ("power.draw", "power_watts", Kind::Watts),
    ("power.draw.average", "power_average_watts", Kind::Watts),
    ("power.draw.instant", "power_instant_watts", Kind::Watts),
    ("enforced.power.limit", "power_limit_watts", Kind::Watts),
    ("power.limit", "power_limit_set_watts", Kind::Watts),
    ("power.default_limit", "power_limit_default_watts", Kind::Watts),
    ("power.min_limit", "power_limit_min_watts", Kind::Watts),
    ("power.max_limit", "power_limit_max_watts", Kind::Watts),
    ("temperature.gpu", "temperature_celsius", Kind::Celsius),
    ("temperature.memory", "memory_temperature_celsius", Kind::Celsius),
    ("temperature.gpu.tlimit", "temperature_margin_celsius", Kind::Celsius),
    ("fan.speed", "fan_ratio", Kind::Percent),
    ("clocks.current.sm", "sm_clock_hertz", Kind::Hertz),
    ("clocks.current.memory", "memory_clock_hertz", Kind::Hertz),
    ("clocks.current.graphics", "graphics_clock_hertz", Kind::Hertz),
    ("clocks.current.video", "video_clock_hertz", Kind::Hertz),
    ("clocks.max.sm", "sm_clock_max_hertz", Kind::Hertz),
    ("clocks.max.memory", "memory_clock_max_hertz", Kind::Hertz),
    ("clocks.max.graphics", "graphics_clock_max_hertz", Kind::Hertz),
    ("clocks_event_reasons.active", "throttle_reasons", Kind::Mask),
    ("clocks_throttle_reasons.active", "throttle_reasons", Kind::Mask),
    ("clocks_event_reasons_counters.sw_power_cap", "power_throttle_seconds", Kind::Seconds),
    ("clocks_event_reasons_counters.sync_boost", "sync_boost_throttle_seconds", Kind::Seconds),
    ("clocks_event_reasons_counters.sw_thermal_slowdown", "thermal_throttle_seconds", Kind::Seconds),
    ("clocks_event_reasons_counters.hw_thermal_slowdown", "hardware_thermal_throttle_seconds", Kind::Seconds),
    ("clocks_event_reasons_counters.hw_power_brake_slowdown", "power_brake_throttle_seconds", Kind::Seconds),
    ("pstate", "performance_state", Kind::PState),
    ("pcie.link.gen.current", "pcie_link_generation", Kind::Count),
    ("pcie.link.gen.max", "pcie_link_generation_max", Kind::Count),
    ("pcie.link.width.current", "pcie_link_width", Kind::Lanes),
    ("pcie.link.width.max", "pcie_link_width_max", Kind::Lanes),
    ("ecc.errors.corrected.volatile.total", "ecc_single_bit_errors", Kind::Count),
    ("ecc.errors.uncorrected.volatile.total", "ecc_double_bit_errors", Kind::Count),
    ("ecc.errors.corrected.aggregate.total", "ecc_single_bit_errors_lifetime", Kind::Count),
    ("ecc.errors.uncorrected.aggregate.total", "ecc_double_bit_errors_lifetime", Kind::Count),
    ("retired_pages.single_bit_ecc.count", "retired_pages_single_bit", Kind::Count),
    ("retired_pages.double_bit.count", "retired_pages_double_bit", Kind::Count),
    ("remapped_rows.correctable", "remapped_rows_correctable", Kind::Count),
    ("remapped_rows.uncorrectable", "remapped_rows_uncorrectable", Kind::Count),
    ("remapped_rows.pending", "row_remap_pending", Kind::YesNo),
    ("remapped_rows.failure", "row_remap_failure", Kind::YesNo),
    ("gpu_recovery_action", "recovery_action", Kind::Recovery),
    ("mig.mode.current", "mig_mode", Kind::Mode),
    ("ecc.mode.current", "ecc_mode", Kind::Mode),
    ("persistence_mode", "persistence_mode", Kind::Mode),
    ("compute_mode", "compute_mode", Kind::ComputeMode),
];

const TEXTS: &[(&str, &str)] = &[
    ("name", "model"),
    ("index", "device_index"),
    ("pci.bus_id", "pci_bus_id"),
    ("driver_version", "driver_version"),
    ("vbios_version", "firmware_version"),
];

/// Reads the whole output.
///
/// # Errors
/// [`OutputError`] where the first line is no header of this query, or a line has another number of fields than it.
pub fn read(text: &str) -> Result<Reading, OutputError> {
    let failed = |why: String| OutputError(format!("nvidia-smi's CSV: {why}"));
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let header = lines.next().unwrap_or_default();
    let names: Vec<&str> = header.split(',').take(FIELDS_MAX).map(field_name).collect();
    if !names.iter().any(|name| matches!(*name, "uuid" | "pci.bus_id")) {
        let start: String = header.chars().take(80).collect();
        return Err(failed(format!("the first line is no header with uuid or pci.bus_id: {start}")));
    }
    let mut reading = Reading::default();
    for (number, line) in lines.enumerate() {
        let cells: Vec<&str> = line.split(',').take(FIELDS_MAX).map(str::trim).collect();
        if cells.len() != names.len() {
            return Err(failed(format!("line {}: {} fields under {} names", number + 2, cells.len(), names.len())));
        }
        if number >= DEVICES_MAX {
            return Err(failed(format!("more than {DEVICES_MAX} devices")));
        }
        device(&names, &cells, &mut reading);
    }
    Ok(reading)
}

/// `memory.total [MiB]` is `memory.total`: each value repeats its unit.
fn field_name(field: &str) -> &str {
    let field = field.trim();
    field.split_once(" [").map_or(field, |(name, _)| name)
}

fn device(names: &[&str], cells: &[&str], reading: &mut Reading) {
    let cell = |wanted: &str| names.iter().position(|name| *name == wanted).map(|at| cells[at]);
    let text = |wanted: &str| cell(wanted).and_then(value::text);
    let own = text("uuid").or_else(|| text("pci.bus_id")).unwrap_or_default();
    let mut entry = Entry { device: own.to_owned(), ..Entry::default() };
    for (field, column, kind) in NUMBERS {
        let Some(text) = cell(field).filter(|_| entry.get(column).is_none()) else { continue };
        match value::number(text, *kind) {
            Ok(value) => entry.number(column, Some(value)),
            Err(NoValue::Absent) => {}
            Err(NoValue::Unreadable) => reading.not_read(field, text),
        }
    }
    for (field, column) in TEXTS {
        entry.text(column, text(field));
    }
    entry.text("vendor", Some("NVIDIA"));
    entry.number("present", Some(1.0));
    reading.entries.push(entry);
}
