//! The output of `rocm-smi … --json`: one object a card, whose keys are sentences with their unit in parentheses.
//!
//! Keys have changed their case with the releases (`Card series`, `Card Series`); they are compared without it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::OutputError;
use super::reading::{Entry, Reading};
use super::value::{self, Kind, NoValue};

/// What is asked for: options that rocm-smi of ROCm 4 has as well as that of ROCm 6.
pub const QUERY: [&str; 18] = [
    "--showuniqueid",
    "--showserial",
    "--showbus",
    "--showproductname",
    "--showvbios",
    "--showdriverversion",
    "--showtemp",
    "--showclocks",
    "--showfan",
    "--showpower",
    "--showmaxpower",
    "--showuse",
    "--showmemuse",
    "--showmeminfo",
    "vram",
    "--showreplaycount",
    "--showperflevel",
    "--json",
];

/// Most cards of one host.
const CARDS_MAX: usize = 256;

/// Keys in lower case. Of several that fill one column the first that has a value counts.
const NUMBERS: &[(&str, &str, Kind)] = &[
    ("gpu use (%)", "utilization", Kind::Percent),
    ("gpu memory read/write activity (%)", "memory_copy_utilization", Kind::Percent),
    // ROCm 5 and before: the same quantity, mem_busy_percent of the driver
    ("gpu memory use (%)", "memory_copy_utilization", Kind::Percent),
    ("gpu memory allocated (vram%)", "memory_utilization", Kind::Percent),
    ("temperature (sensor memory) (c)", "memory_temperature_celsius", Kind::Celsius),
    ("average graphics package power (w)", "power_watts", Kind::Watts),
    ("current socket graphics package power (w)", "power_watts", Kind::Watts),
    ("max graphics package power (w)", "power_limit_watts", Kind::Watts),
    ("fan speed (%)", "fan_ratio", Kind::Percent),
    ("sclk clock speed:", "sm_clock_hertz", Kind::Hertz),
    ("mclk clock speed:", "memory_clock_hertz", Kind::Hertz),
    ("vram total memory (b)", "memory_total_bytes", Kind::Bytes),
    ("vram total used memory (b)", "memory_used_bytes", Kind::Bytes),
    ("pcie replay count", "pcie_replays", Kind::Count),
];

/// Two sensors of the chip: the hotter counts, as in the mapping of AMD's exporter.
const TEMPERATURES: [&str; 2] = ["temperature (sensor edge) (c)", "temperature (sensor junction) (c)"];

/// Reads the whole output.
///
/// # Errors
/// [`OutputError`], with line and column, where it is no JSON object of cards.
pub fn read(text: &str) -> Result<Reading, OutputError> {
    let failed = |why: String| OutputError(format!("rocm-smi's JSON: {why}"));
    // Warnings may come before it on the same stream.
    let start = text.find('{').ok_or_else(|| failed("there is no object in it".to_owned()))?;
    let all: BTreeMap<String, Value> =
        serde_json::from_str(&text[start..]).map_err(|error| failed(error.to_string()))?;
    let system = all.get("system").map(fields);
    let driver = system.and_then(|system| system.get("driver version").cloned());
    let mut cards: Vec<(u32, &Value)> =
        all.iter().filter_map(|(key, card)| Some((key.strip_prefix("card")?.parse().ok()?, card))).collect();
    cards.sort_by_key(|(number, _)| *number);
    if cards.len() > CARDS_MAX {
        return Err(failed(format!("{} cards, more than {CARDS_MAX}", cards.len())));
    }
    let mut reading = Reading::default();
    for (number, card) in cards {
        device(number, &fields(card), driver.as_deref(), &mut reading);
    }
    Ok(reading)
}

/// Keys in lower case; what is neither text nor number has no place here.
fn fields(card: &Value) -> BTreeMap<String, String> {
    let object = card.as_object().into_iter().flatten();
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    object.filter_map(|(key, value)| Some((key.trim().to_ascii_lowercase(), text(value)?))).collect()
}

fn device(number: u32, card: &BTreeMap<String, String>, driver: Option<&str>, reading: &mut Reading) {
    let text = |key: &str| card.get(key).and_then(|text| value::text(text));
    let mut read = |key: &str, kind: Kind| {
        let raw = value::text(card.get(key)?)?;
        // `(1269Mhz)`; bytes and watts have their unit in the key.
        let raw = raw.trim_start_matches('(').trim_end_matches(')');
        let unit = match kind {
            Kind::Bytes => " B",
            Kind::Watts => " W",
            _ => "",
        };
        let read = value::number(&format!("{raw}{unit}"), kind);
        if read == Err(NoValue::Unreadable) {
            reading.not_read(key, raw);
        }
        read.ok()
    };
    let mut entry = Entry::default();
    for (key, column, kind) in NUMBERS {
        if entry.get(column).is_none() {
            entry.number(column, read(key, *kind));
        }
    }
    let hottest = TEMPERATURES.iter().filter_map(|key| read(key, Kind::Celsius)).reduce(f64::max);
    entry.number("temperature_celsius", hottest);
    if let (Some(total), Some(used)) = (entry.get("memory_total_bytes"), entry.get("memory_used_bytes")) {
        entry.number("memory_free_bytes", (total >= used).then_some(total - used));
    }
    entry.number("present", Some(1.0));
    let serial = text("serial number").filter(|serial| !serial.bytes().all(|byte| byte == b'0'));
    let own = text("unique id").or(serial).or_else(|| text("pci bus"));
    entry.device = own.map_or_else(|| format!("card{number}"), str::to_owned);
    entry.text("model", text("card series").or_else(|| text("device name")).or_else(|| text("card model")));
    entry.text("vendor", text("card vendor"));
    entry.text("device_index", Some(number.to_string()));
    entry.text("pci_bus_id", text("pci bus"));
    entry.text("driver_version", driver);
    entry.text("firmware_version", text("vbios version"));
    reading.entries.push(entry);
}
