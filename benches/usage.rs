//! What this process has used: CPU seconds and peak memory, as the kernel counts them.

use std::time::Duration;

/// User and system time of this process, without its children.
///
/// # Panics
/// Where `/proc` is not there: the benchmarks run on Linux.
pub fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc/self/stat");
    // The command name may hold spaces: fields are counted behind its closing bracket.
    let rest = stat.rsplit_once(')').expect("a command name").1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
    // USER_HZ is 100 on every Linux that Rust supports.
    Duration::from_millis(ticks * 10)
}

/// Peak resident memory in MiB since the start or the last [`reset_peak`].
///
/// # Panics
/// Where `/proc` is not there.
pub fn peak_mib() -> f64 {
    status_mib("VmHWM:")
}

/// Resident memory in MiB now.
///
/// # Panics
/// Where `/proc` is not there.
pub fn resident_mib() -> f64 {
    status_mib("VmRSS:")
}

fn status_mib(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc/self/status");
    let line = status.lines().find(|l| l.starts_with(field)).expect("the field");
    let kib: f64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib / 1024.0
}

/// Starts the peak anew, so that each part reports its own.
pub fn reset_peak() {
    // Refused in some sandboxes: then the peak is that of the whole run, which is an upper bound.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
