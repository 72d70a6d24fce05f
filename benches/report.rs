//! What a part measured, and the tables made of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::usage;

/// One part's figures.
#[derive(Debug, Serialize, Deserialize)]
pub struct Part {
    /// Rows or points.
    pub count: u64,
    /// User and system time, seconds.
    pub cpu: f64,
    /// Elapsed time, seconds.
    pub wall: f64,
    /// Peak resident memory, MiB, and how much of it the input held.
    pub peak_mib: f64,
    /// Resident memory before the work began: the input of the benchmark.
    pub input_mib: f64,
    /// Anything else, by name.
    pub extra: BTreeMap<String, f64>,
}

/// Measures from its making to [`Meter::stop`].
pub struct Meter {
    cpu: Duration,
    start: std::time::Instant,
    input_mib: f64,
}

impl Meter {
    /// Starts now. What is in memory now is input.
    pub fn start() -> Meter {
        usage::reset_peak();
        Meter { input_mib: usage::resident_mib(), cpu: usage::cpu(), start: std::time::Instant::now() }
    }

    /// The figures for `count` rows or points.
    pub fn stop(self, count: u64) -> Part {
        Part {
            count,
            cpu: (usage::cpu() - self.cpu).as_secs_f64(),
            wall: self.start.elapsed().as_secs_f64(),
            peak_mib: usage::peak_mib(),
            input_mib: self.input_mib,
            extra: BTreeMap::new(),
        }
    }
}

impl Part {
    /// Rows or points per CPU-second, in millions.
    pub fn rate(&self) -> f64 {
        self.count as f64 / self.cpu.max(1e-9) / 1e6
    }

    /// One line.
    pub fn print(&self, name: &str) {
        println!(
            "{name:<18} {:>7.2} M/CPU-s   {:>6.2} CPU-s  {:>6.2} s elapsed  peak {:>6.0} MiB, of which input {:>6.0} MiB",
            self.rate(),
            self.cpu,
            self.wall,
            self.peak_mib,
            self.input_mib,
        );
    }
}

/// The whole stage beside the sum of its parts, and where its time goes.
pub fn stage(decode: &Part, group: &Part, encode: &Part, whole: &Part) {
    let ceiling = 1.0 / (1.0 / decode.rate() + 1.0 / group.rate() + 1.0 / encode.rate());
    println!(
        "\nceiling of the parts {ceiling:.2} M rows/CPU-s; whole stage {:.2} M, {:.0} % of it",
        whole.rate(),
        100.0 * whole.rate() / ceiling
    );
    let known: f64 = whole.extra.values().sum();
    for (step, seconds) in &whole.extra {
        println!("  {step:<22} {:>6.2} s  {:>4.0} %", seconds, 100.0 * seconds / whole.cpu);
    }
    println!("  {:<22} {:>6.2} s  {:>4.0} %", "the rest", whole.cpu - known, 100.0 * (whole.cpu - known) / whole.cpu);
}

/// The door beside a bare decode of the same bytes.
pub fn door(prost: &Part, door: &Part) {
    println!(
        "\nOTLP/HTTP door {:.2} M points/CPU-s, {:.0} % of a bare prost decode of the same bytes",
        door.rate(),
        100.0 * door.rate() / prost.rate()
    );
}

/// A decoder beside its parser.
pub fn decoder(bare: &Part, decoder: &Part) {
    println!("  {:.0} % of the parser alone", 100.0 * decoder.rate() / bare.rate());
}

/// Compaction beside a plain copy of the same files.
pub fn compact(copy: &Part, compact: &Part) {
    for (name, part) in [("copy", copy), ("compact", compact)] {
        let mib = part.extra.values().sum::<f64>();
        println!(
            "{name:<10} {:>7.1} MiB in  {:>6.1} MiB/s  {:>6.2} M rows/s  {:>4.0} MiB of memory beside the input",
            mib,
            mib / part.wall,
            part.count as f64 / part.wall / 1e6,
            part.peak_mib - part.input_mib
        );
    }
    println!("compaction takes {:.2} times the CPU of a plain copy", compact.cpu / copy.cpu.max(1e-9));
}

/// Bytes of state by rows and groups.
pub fn memory(part: &Part) {
    for (what, value) in &part.extra {
        println!("  {what:<40} {:>8.1} KiB", value / 1024.0);
    }
}

/// Whatever else a part has counted.
pub fn extra(part: &Part) {
    for (what, value) in &part.extra {
        println!("  {what:<40} {value:>10.0}");
    }
}

/// Commits of each interval beside the longest.
pub fn commits(parts: &[(u64, Part)]) {
    let Some((longest, baseline)) = parts.last() else { return };
    for (interval, part) in parts {
        println!(
            "  a commit each {interval:>2} s: {:>5.2} M rows/CPU-s, {:>3.0} % of that at {longest} s; {:.2} M rows/s elapsed; {:.0} raw files, {:.0} MiB",
            part.rate(),
            100.0 * part.rate() / baseline.rate(),
            part.count as f64 / part.wall / 1e6,
            part.extra.get("raw files").unwrap_or(&0.0),
            part.extra.get("MiB").unwrap_or(&0.0),
        );
    }
}

/// Restarts beside a plain read of the same files.
pub fn recovery(parts: &[Part]) {
    for part in parts {
        let plain = part.extra.get("plain read, s").copied().unwrap_or(0.0);
        println!(
            "  {:>9} rows of open windows: {:>6.2} s to the first message, {:.2} M rows/s; the files alone read in {plain:.2} s",
            part.count,
            part.wall,
            part.count as f64 / part.wall / 1e6,
        );
    }
}

/// Two shards on two cores beside one on one.
pub fn scaling(one: &Part, two: &Part) {
    let rate = |part: &Part| part.count as f64 / part.wall / 1e6;
    println!(
        "  1 shard {:.2} M rows/s, 2 shards {:.2} M rows/s elapsed: {:.2} times as much",
        rate(one),
        rate(two),
        rate(two) / rate(one)
    );
}
