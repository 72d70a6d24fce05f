//! What the process itself uses, under the names every Prometheus client library gives it.

use airan_model::time::Micros;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, IntGauge, IntGaugeVec, Opts, Registry};

/// Ticks a second in `/proc/self/stat`: Linux fixes what it shows there at 100 (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Memory, CPU time, threads and files of this process, read from procfs at each scrape.
pub struct ProcessMetrics {
    resident: IntGauge,
    cpu: Counter,
    threads: IntGauge,
    open_files: IntGauge,
    start: Gauge,
    build: IntGaugeVec,
}

impl ProcessMetrics {
    /// Registers the metrics of this process, which started at `start`.
    pub fn register(registry: &Registry, start: Micros) -> Result<(), prometheus::Error> {
        let metrics = ProcessMetrics {
            resident: IntGauge::new("process_resident_memory_bytes", "Resident memory of this process.")?,
            cpu: Counter::new("process_cpu_seconds_total", "User and system time of this process.")?,
            threads: IntGauge::new("process_threads", "Threads of this process.")?,
            open_files: IntGauge::new("process_open_fds", "Open file descriptors of this process.")?,
            start: Gauge::new("process_start_time_seconds", "When this process started, in seconds since 1970.")?,
            build: IntGaugeVec::new(Opts::new("airan_build_info", "1, with the version of airan."), &["version"])?,
        };
        metrics.start.set(start as f64 / 1e6);
        metrics.build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(metrics))
    }

    fn refresh(&self) {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        if let Some(kib) = field(&status, "VmRSS:") {
            self.resident.set(kib.saturating_mul(1024));
        }
        if let Some(threads) = field(&status, "Threads:") {
            self.threads.set(threads);
        }
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        if let Some(seconds) = cpu_seconds(&stat) {
            self.cpu.inc_by((seconds - self.cpu.get()).max(0.0));
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            self.open_files.set(i64::try_from(files.count()).unwrap_or(i64::MAX));
        }
    }
}

impl Collector for ProcessMetrics {
    fn desc(&self) -> Vec<&Desc> {
        let parts = [self.resident.desc(), self.cpu.desc(), self.threads.desc(), self.open_files.desc()];
        parts.into_iter().chain([self.start.desc(), self.build.desc()]).flatten().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.refresh();
        let parts = [self.resident.collect(), self.cpu.collect(), self.threads.collect(), self.open_files.collect()];
        parts.into_iter().chain([self.start.collect(), self.build.collect()]).flatten().collect()
    }
}

/// The number behind a name in `/proc/self/status`.
fn field(status: &str, name: &str) -> Option<i64> {
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// User and system time in `/proc/self/stat` (proc_pid_stat(5): fields 14 and 15). The name, field 2, may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some((next()? + next()?) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn procfs_is_read_as_documented() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 12345 1 2";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("nonsense"), None);
        assert_eq!(field("VmHWM:\t 9 kB\nVmRSS:\t   1234 kB\n", "VmRSS:"), Some(1234));
    }

    /// Scenario: the metrics of this very process.
    #[test]
    fn this_process_has_memory_and_a_start() {
        let registry = Registry::new();
        ProcessMetrics::register(&registry, 5_000_000).unwrap();
        let families = registry.gather();
        let of =
            |name: &str| families.iter().find(|f| f.name() == name).unwrap().get_metric()[0].get_gauge().get_value();
        assert_eq!(of("process_start_time_seconds"), 5.0);
        assert!(of("process_resident_memory_bytes") > 1e5);
        assert_eq!(of("airan_build_info"), 1.0);
    }
}
