//! What radio and inference stand on: clocks, hosts, interfaces, containers, and what happened to them.

use super::line::Line;
use super::noise::Noise;
use super::site::{Drive, NODES, SERVERS, SWITCH, TROUBLED};

/// Seconds between reports.
const TIMING_PERIOD: i64 = 5;
const HOST_PERIOD: i64 = 10;
const HEARTBEAT_PERIOD: i64 = 60;
/// Where a clock without a reference drifts to in the end, seconds.
const DRIFT: f64 = 1.5e-6;
const GIB: f64 = 1_073_741_824.0;
/// Cores of a server.
const CPUS: f64 = 64.0;
/// What a second of work reads from disks and writes to them.
const READ_BYTES: f64 = 65_536.0;
const WRITTEN_BYTES: f64 = 262_144.0;
/// 25 Gbit/s.
const LINE_RATE: f64 = 25e9 / 8.0;
/// Ports, by node, with the share of the line they use at noon.
const PORTS: [(&str, &str, f64); 8] = [
    (SERVERS[0], "ens1f0", 0.5),
    (SERVERS[0], "ens2f0", 0.2),
    (SERVERS[1], "ens1f0", 0.5),
    (SERVERS[1], "ens2f0", 0.2),
    (SWITCH, "swp1", 0.5),
    (SWITCH, "swp2", 0.5),
    (SWITCH, "swp3", 0.2),
    (SWITCH, "swp4", 0.2),
];
/// Pods, by server: namespace, name, cores and GiB.
const PODS: [(usize, &str, &str, f64, f64); 4] = [
    (0, "ran", "demo-du-1", 14.0, 22.0),
    (0, "ai", "demo-llm-1", 6.0, 64.0),
    (1, "ran", "demo-du-2", 14.0, 22.0),
    (1, "ai", "demo-batch-1", 4.0, 48.0),
];

/// Counters of all of it.
pub(super) struct Platform {
    noise: Vec<Noise>,
    cpu: [f64; 2],
    idle: [f64; 2],
    energy: [f64; 2],
    ports: [f64; PORTS.len()],
    pods: [f64; PODS.len()],
    /// Troubles as they were a second ago, in the order of [`Platform::troubles`].
    before: [bool; 3],
    events: u64,
}

impl Platform {
    pub fn new(seed: u64) -> Platform {
        Platform {
            noise: NODES.iter().map(|node| Noise::new(seed, node)).collect(),
            cpu: [0.0; 2],
            idle: [0.0; 2],
            energy: [0.0; 2],
            ports: [0.0; PORTS.len()],
            pods: [0.0; PODS.len()],
            before: [false; 3],
            events: 0,
        }
    }

    /// One second; gives the offset of the troubled server's clock, in seconds.
    pub fn step(&mut self, drive: Drive, lines: &mut Vec<Line>) -> f64 {
        let offset = drive.holdover.map_or(0.0, |part| DRIFT * part);
        self.clocks(drive, offset, lines);
        self.hosts(drive, lines);
        self.interfaces(drive, lines);
        self.containers(drive, lines);
        self.happenings(drive, lines);
        if drive.is_due(30) {
            let celsius = 24.0 + 1.5 * drive.demand + 0.3 * self.noise[2].smooth(drive.moment.second);
            lines.push(
                Line::new("sample", SWITCH, drive.moment)
                    .word("name", "demo_room_temperature_celsius")
                    .word("type", "gauge")
                    .number("value", celsius),
            );
        }
        offset
    }

    fn clocks(&self, drive: Drive, drift: f64, lines: &mut Vec<Line>) {
        if !drive.is_due(TIMING_PERIOD) {
            return;
        }
        for (server, node) in SERVERS.into_iter().enumerate() {
            let lost = drive.holdover.filter(|_| server == TROUBLED);
            let drift = lost.map_or(0.0, |_| drift);
            for (process, interface, reference, spread) in
                [("ptp4l", "ens1f0", "master", 9e-9), ("phc2sys", "CLOCK_REALTIME", "phc", 14e-9)]
            {
                let is_lost = lost.is_some() && process == "ptp4l";
                let offset = spread * self.noise[server].rough(drive.moment.second + i64::from(process == "ptp4l"));
                lines.push(
                    Line::new("timing", node, drive.moment)
                        .word("clock", if lost.is_some() { "holdover" } else { "locked" })
                        .word("process", process)
                        .word("interface", interface)
                        .word("reference", reference)
                        .word("clock_state", if is_lost { "holdover" } else { "locked" })
                        .number("offset_seconds", offset + if is_lost { drift } else { 0.0 })
                        .number("path_delay_seconds", 412e-9)
                        .whole("clock_class", if is_lost { 7.0 } else { 6.0 })
                        .whole("process_up", 1.0)
                        .whole("process_restarts", 0.0),
                );
            }
        }
    }

    fn hosts(&mut self, drive: Drive, lines: &mut Vec<Line>) {
        for (server, node) in SERVERS.into_iter().enumerate() {
            let noise = 0.05 * self.noise[server].smooth(drive.moment.second);
            let busy = (0.2 + 0.4 * drive.demand + noise).clamp(0.05, 0.95);
            let watts = 350.0 + 400.0 * busy;
            self.cpu[server] += CPUS * busy;
            self.idle[server] += CPUS * (1.0 - busy);
            self.energy[server] += watts;
            if !drive.is_due(HOST_PERIOD) {
                continue;
            }
            lines.push(
                Line::new("host", node, drive.moment)
                    .number("cpu_user_seconds", self.cpu[server] * 0.8)
                    .number("cpu_system_seconds", self.cpu[server] * 0.2)
                    .number("cpu_idle_seconds", self.idle[server])
                    .number("cpus", CPUS)
                    .number("load1", CPUS * busy * 1.1)
                    .number("memory_total_bytes", 512.0 * GIB)
                    .number("memory_available_bytes", (420.0 - 160.0 * busy) * GIB)
                    .number("disk_read_bytes", self.cpu[server] * READ_BYTES)
                    .number("disk_written_bytes", self.cpu[server] * WRITTEN_BYTES)
                    .number("fullest_filesystem_ratio", 0.42 + 0.04 * busy)
                    .number("power_watts", watts)
                    .number("energy_joules", self.energy[server])
                    .number("uptime_seconds", drive.moment.second as f64),
            );
        }
    }

    fn interfaces(&mut self, drive: Drive, lines: &mut Vec<Line>) {
        for ((node, interface, share), bytes) in PORTS.into_iter().zip(&mut self.ports) {
            *bytes += LINE_RATE * share * (0.3 + 0.9 * drive.demand);
            if !drive.is_due(HOST_PERIOD) {
                continue;
            }
            lines.push(
                Line::new("link", node, drive.moment)
                    .word("interface", interface)
                    .whole("rx_bytes", *bytes)
                    .whole("tx_bytes", *bytes * 0.8)
                    .whole("rx_packets", *bytes / 1_300.0)
                    .whole("tx_packets", *bytes * 0.8 / 1_300.0)
                    .whole("rx_errors", 0.0)
                    .whole("tx_errors", 0.0)
                    .whole("rx_drops", *bytes / 4e12)
                    .whole("tx_drops", 0.0)
                    .number("speed_bytes_per_second", LINE_RATE)
                    .whole("up", 1.0)
                    .whole("carrier", 1.0),
            );
        }
    }

    fn containers(&mut self, drive: Drive, lines: &mut Vec<Line>) {
        for ((server, namespace, pod, cores, gib), cpu) in PODS.into_iter().zip(&mut self.pods) {
            *cpu += cores * (0.4 + 0.6 * drive.demand);
            if !drive.is_due(HOST_PERIOD) {
                continue;
            }
            lines.push(
                Line::new("container", SERVERS[server], drive.moment)
                    .word("namespace", namespace)
                    .word("pod", pod)
                    .number("cpu_seconds", *cpu)
                    .number("memory_working_set_bytes", gib * GIB)
                    .number("memory_limit_bytes", 1.5 * gib * GIB),
            );
        }
    }

    /// Heartbeats, and where a trouble begins or ends.
    fn happenings(&mut self, drive: Drive, lines: &mut Vec<Line>) {
        if drive.is_due(HEARTBEAT_PERIOD) {
            for node in NODES {
                lines.push(
                    Line::new("event", node, drive.moment).word("type", "heartbeat").word("name", "demo_heartbeat"),
                );
            }
        }
        let now = [drive.saturation, drive.throttling, drive.holdover].map(|trouble| trouble.is_some());
        for (index, (is, was)) in now.into_iter().zip(self.before).enumerate() {
            if is == was {
                continue;
            }
            self.events += 1;
            let (server, object, kind, name, states) = match index {
                0 => (0, "demo-cell-3", "threshold", "cell_saturated", ["normal", "saturated"]),
                1 => (0, "demo-gpu-2", "fault", "thermal_slowdown", ["full speed", "throttled"]),
                _ => (TROUBLED, "ptp4l", "state_change", "ptp_state", ["locked", "holdover"]),
            };
            let [old, new] = if is { states } else { [states[1], states[0]] };
            lines.push(
                Line::new("event", SERVERS[server], drive.moment)
                    .word("object", object)
                    .word("type", kind)
                    .word("name", name)
                    .word("severity", if is { "major" } else { "cleared" })
                    .word("old_state", old)
                    .word("new_state", new)
                    .word("event_id", &format!("demo-{name}"))
                    .whole("sequence", self.events as f64)
                    .word("message", "simulated"),
            );
        }
        self.before = now;
    }
}
