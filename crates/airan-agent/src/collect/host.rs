//! This host: CPU time by mode, load, memory, whole disks, local file systems, pressure.
//!
//! What one kernel has and another has not (pressure, disks in a container) is left null.

use std::path::Path;
use std::time::Duration;

use airan_model::time::SECOND;
use procfs::prelude::*;
use procfs::{
    CpuPressure, DiskStats, IoPressure, KernelStats, LoadAverage, Meminfo, MemoryPressure, MountEntry, Uptime,
};

use super::{CollectError, Collection, Kernel};
use crate::rows::Reading;

/// Bytes of a sector in `/proc/diskstats`, whatever the disk's own are.
const SECTOR: f64 = 512.0;

/// File systems that hold data of this host. Network ones may hang, and those of the kernel have no size.
const LOCAL: [&str; 8] = ["ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs"];

/// Devices in `/sys/block` that are no disks of their own.
const NO_DISKS: [&str; 7] = ["loop", "ram", "zram", "dm-", "md", "sr", "fd"];

pub(super) fn collect(kernel: &Kernel) -> Result<Collection, CollectError> {
    let mut reading = Reading::default();
    let stats = KernelStats::from_file(kernel.proc_path.join("stat"), procfs::current_system_info())?;
    cpu(&stats, &mut reading);
    let memory = Meminfo::from_file(kernel.proc_path.join("meminfo"))?;
    memory_and_swap(&memory, &mut reading);
    let load = LoadAverage::from_file(kernel.proc_path.join("loadavg"))?;
    reading.number("load1", f64::from(load.one));
    reading.number("load5", f64::from(load.five));
    reading.number("load15", f64::from(load.fifteen));
    reading.number("processes", f64::from(load.max));
    let uptime = Uptime::from_file(kernel.proc_path.join("uptime"));
    reading.maybe("uptime_seconds", uptime.ok().map(|uptime| uptime.uptime));
    reading.number("boot_time_seconds", stats.btime as f64);
    disks(kernel, &mut reading);
    file_systems(&kernel.proc_path, &mut reading);
    pressure(&kernel.proc_path, &mut reading);
    open_files(&kernel.proc_path, &mut reading);
    let start_ts = i64::try_from(stats.btime).ok().and_then(|btime| btime.checked_mul(SECOND));
    Ok(Collection { start_ts, readings: vec![reading] })
}

fn cpu(stats: &KernelStats, reading: &mut Reading) {
    let total = &stats.total;
    reading.number("cpu_user_seconds", total.user_duration().as_secs_f64());
    reading.number("cpu_nice_seconds", total.nice_duration().as_secs_f64());
    reading.number("cpu_system_seconds", total.system_duration().as_secs_f64());
    reading.number("cpu_idle_seconds", total.idle_duration().as_secs_f64());
    let seconds = |span: Option<Duration>| span.map(|span| span.as_secs_f64());
    reading.maybe("cpu_iowait_seconds", seconds(total.iowait_duration()));
    reading.maybe("cpu_irq_seconds", seconds(total.irq_duration()));
    reading.maybe("cpu_softirq_seconds", seconds(total.softirq_duration()));
    reading.maybe("cpu_steal_seconds", seconds(total.steal_duration()));
    reading.maybe("cpu_guest_seconds", seconds(total.guest_duration()));
    reading.maybe("cpu_guest_nice_seconds", seconds(total.guest_nice_duration()));
    reading.number("cpus", stats.cpu_time.len() as f64);
    reading.number("context_switches", stats.ctxt as f64);
    reading.number("forks", stats.processes as f64);
    reading.maybe("processes_running", stats.procs_running.map(f64::from));
    reading.maybe("processes_blocked", stats.procs_blocked.map(f64::from));
}

fn memory_and_swap(memory: &Meminfo, reading: &mut Reading) {
    reading.number("memory_total_bytes", memory.mem_total as f64);
    reading.number("memory_free_bytes", memory.mem_free as f64);
    reading.number("memory_buffers_bytes", memory.buffers as f64);
    reading.number("memory_cached_bytes", memory.cached as f64);
    if let Some(available) = memory.mem_available {
        reading.number("memory_available_bytes", available as f64);
        reading.number("memory_used_bytes", memory.mem_total.saturating_sub(available) as f64);
    }
    reading.number("swap_total_bytes", memory.swap_total as f64);
    reading.number("swap_free_bytes", memory.swap_free as f64);
    reading.number("swap_used_bytes", memory.swap_total.saturating_sub(memory.swap_free) as f64);
}

/// Adds up whole disks; partitions, and what lies on disks (device mapper, RAID), would count twice.
fn disks(kernel: &Kernel, reading: &mut Reading) {
    let block = kernel.sys_path.join("block");
    let Ok(DiskStats(disks)) = DiskStats::from_file(kernel.proc_path.join("diskstats")) else { return };
    let is_disk = |name: &str| !NO_DISKS.iter().any(|prefix| name.starts_with(prefix)) && block.join(name).exists();
    let disks: Vec<_> = disks.into_iter().filter(|disk| is_disk(&disk.name)).collect();
    if disks.is_empty() {
        return;
    }
    let sum = |value: fn(&procfs::DiskStat) -> u64| disks.iter().map(|disk| value(disk) as f64).sum::<f64>();
    reading.number("disk_read_bytes", sum(|disk| disk.sectors_read) * SECTOR);
    reading.number("disk_written_bytes", sum(|disk| disk.sectors_written) * SECTOR);
    reading.number("disk_reads", sum(|disk| disk.reads));
    reading.number("disk_writes", sum(|disk| disk.writes));
    reading.number("disk_read_seconds", sum(|disk| disk.time_reading) / 1e3);
    reading.number("disk_write_seconds", sum(|disk| disk.time_writing) / 1e3);
    reading.number("disk_io_seconds", sum(|disk| disk.time_in_progress) / 1e3);
}

fn file_systems(proc_path: &Path, reading: &mut Reading) {
    if let Some(root) = Space::of("/") {
        reading.number("root_filesystem_size_bytes", root.size);
        reading.number("root_filesystem_free_bytes", root.free);
        reading.number("root_filesystem_available_bytes", root.available);
        reading.number("root_filesystem_used_bytes", root.size - root.free);
    }
    let mounts = Vec::<MountEntry>::from_file(proc_path.join("mounts")).unwrap_or_default();
    let local =
        mounts.iter().filter(|mount| LOCAL.contains(&mount.fs_vfstype.as_str())).map(|mount| mount.fs_file.as_str());
    let used = local.chain(["/"]).filter_map(|path| Some((path, Space::of(path)?.used_ratio()?)));
    if let Some((path, ratio)) = used.max_by(|(_, a), (_, b)| a.total_cmp(b)) {
        reading.number("fullest_filesystem_ratio", ratio);
        reading.texts.push(("fullest_filesystem", path.to_owned()));
    }
}

/// Space of a file system, bytes.
struct Space {
    size: f64,
    free: f64,
    available: f64,
}

impl Space {
    fn of(path: &str) -> Option<Space> {
        let status = rustix::fs::statvfs(path).ok()?;
        let bytes = |blocks: u64| blocks as f64 * status.f_frsize as f64;
        Some(Space { size: bytes(status.f_blocks), free: bytes(status.f_bfree), available: bytes(status.f_bavail) })
    }

    /// As `df` shows it: what is used over what ordinary users could have; None for one without a size.
    fn used_ratio(&self) -> Option<f64> {
        let used = self.size - self.free;
        let all = used + self.available;
        (all > 0.0).then(|| used / all)
    }
}

fn pressure(proc_path: &Path, reading: &mut Reading) {
    let folder = proc_path.join("pressure");
    let seconds = |micros: u64| micros as f64 / 1e6;
    if let Ok(cpu) = CpuPressure::from_file(folder.join("cpu")) {
        reading.number("cpu_pressure_seconds", seconds(cpu.some.total));
    }
    if let Ok(memory) = MemoryPressure::from_file(folder.join("memory")) {
        reading.number("memory_pressure_seconds", seconds(memory.some.total));
        reading.number("memory_stall_seconds", seconds(memory.full.total));
    }
    if let Ok(io) = IoPressure::from_file(folder.join("io")) {
        reading.number("io_pressure_seconds", seconds(io.some.total));
        reading.number("io_stall_seconds", seconds(io.full.total));
    }
}

/// `/proc/sys/fs/file-nr`: handles in use, handles free (always 0), most there may be.
fn open_files(proc_path: &Path, reading: &mut Reading) {
    let Ok(text) = std::fs::read_to_string(proc_path.join("sys/fs/file-nr")) else { return };
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    if let [open, _, limit] = numbers[..] {
        reading.number("open_files", open);
        reading.number("open_files_limit", limit);
    }
}
