//! This host's network interfaces: counters from `/proc/net/dev`, speed and state from `/sys/class/net`.

use std::path::Path;

use airan_model::time::SECOND;
use procfs::KernelStats;
use procfs::net::InterfaceDeviceStatus;
use procfs::prelude::*;

use super::{CollectError, Collection, Kernel};
use crate::rows::Reading;

/// Bytes a second of one megabit a second, the unit of `/sys/class/net/*/speed`.
const MEGABIT: f64 = 125_000.0;

pub(super) fn collect(kernel: &Kernel) -> Result<Collection, CollectError> {
    let InterfaceDeviceStatus(devices) = InterfaceDeviceStatus::from_file(kernel.proc_path.join("net/dev"))?;
    let stats = KernelStats::from_file(kernel.proc_path.join("stat"), procfs::current_system_info());
    let start_ts = stats.ok().and_then(|stats| i64::try_from(stats.btime).ok()?.checked_mul(SECOND));
    let mut devices: Vec<_> =
        devices.into_values().filter(|device| !ignored(&device.name, &kernel.links_ignored)).collect();
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    let readings = devices.into_iter().map(|device| {
        let mut reading = Reading { entity: vec![("interface", device.name.clone())], ..Reading::default() };
        for (column, value) in [
            ("rx_bytes", device.recv_bytes),
            ("tx_bytes", device.sent_bytes),
            ("rx_packets", device.recv_packets),
            ("tx_packets", device.sent_packets),
            ("rx_errors", device.recv_errs),
            ("tx_errors", device.sent_errs),
            ("rx_drops", device.recv_drop),
            ("tx_drops", device.sent_drop),
            ("rx_fifo_errors", device.recv_fifo),
            ("tx_fifo_errors", device.sent_fifo),
            ("rx_frame_errors", device.recv_frame),
            ("rx_multicast_packets", device.recv_multicast),
            ("tx_carrier_errors", device.sent_carrier),
            ("collisions", device.sent_colls),
        ] {
            reading.number(column, value as f64);
        }
        state(&kernel.sys_path.join("class/net").join(&device.name), &mut reading);
        reading
    });
    Ok(Collection { start_ts, readings: readings.collect() })
}

/// Speed, state and carrier. The kernel refuses to say some of them for interfaces that are down, or gives -1.
fn state(folder: &Path, reading: &mut Reading) {
    let text = |file: &str| std::fs::read_to_string(folder.join(file)).ok().map(|text| text.trim().to_owned());
    let number = |file: &str| text(file)?.parse::<f64>().ok().filter(|value| *value >= 0.0);
    reading.maybe("speed_bytes_per_second", number("speed").map(|megabits| megabits * MEGABIT));
    reading.maybe("mtu_bytes", number("mtu"));
    reading.maybe("tx_queue_length", number("tx_queue_len"));
    reading.maybe("carrier_changes", number("carrier_changes"));
    let carrier = number("carrier");
    reading.maybe("carrier", carrier);
    // Loopback and tunnels have no operational state of their own: there a carrier counts.
    let up = match text("operstate").as_deref() {
        Some("up") => Some(1.0),
        Some("unknown") => carrier,
        Some(_) => Some(0.0),
        None => None,
    };
    reading.maybe("up", up);
}

/// Whether a name is in the list, or begins with an entry that ends in `*`.
fn ignored(name: &str, list: &[String]) -> bool {
    list.iter().any(|entry| match entry.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == entry,
    })
}
