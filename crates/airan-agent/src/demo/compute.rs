//! Four GPUs, three of them cut by MIG into eight slices, and a model server.
//!
//! On each server GPU 1 (`demo-gpu-1`, `demo-gpu-3`) carries the radio's layer 1 on a slice of three sevenths beside AI; `demo-gpu-2` is whole
//! and serves the large model, `demo-gpu-4` is cut in two, and after a quarter of the day in three. Powers and speeds are of the size of an 80 GB data-centre GPU, no measurement.

use super::line::{Line, Tally};
use super::noise::Noise;
use super::site::{Drive, SERVERS};

/// Seconds between reports.
const PERIOD: i64 = 5;
const GIB: f64 = 1_073_741_824.0;
/// Memory of a device.
const MEMORY: f64 = 80.0 * GIB;
/// Power of a device that does nothing, and of one that is busy.
const IDLE_WATTS: f64 = 90.0;
const BUSY_WATTS: f64 = 420.0;
/// Slices a device has.
const SLICES: f64 = 7.0;
/// The clock of a device, and of one that is too hot.
const CLOCK: f64 = 1.755e9;
const THROTTLED_CLOCK: f64 = 1.2e9;
/// NVML's bit for thermal slow-down by software (nvmlClocksThrottleReasonSwThermalSlowdown).
const THERMAL_BIT: f64 = 32.0;
/// Bounds of vLLM's histograms, seconds.
const TTFT_BOUNDS: [f64; 16] =
    [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const TPOT_BOUNDS: [f64; 11] = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75];
const QUEUE_BOUNDS: [f64; 9] = [0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.5];

/// What a slice, or a whole device, works for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Ran,
    Ai,
}

impl Work {
    fn owner(self) -> (&'static str, &'static str) {
        match self {
            Work::Ran => ("ran", "demo-du"),
            Work::Ai => ("ai", "demo-llm"),
        }
    }

    fn workload(self) -> &'static str {
        self.owner().0
    }
}

/// A slice: sevenths, profile, eighths of the memory, what for.
#[derive(Clone, Copy)]
struct Slice(f64, &'static str, f64, Work);

const RADIO_LAYOUT: &[Slice] = &[
    Slice(3.0, "3g.40gb", 4.0, Work::Ran),
    Slice(2.0, "2g.20gb", 2.0, Work::Ai),
    Slice(2.0, "2g.20gb", 2.0, Work::Ai),
];
const AI_LAYOUT: &[Slice] =
    &[Slice(3.0, "3g.40gb", 4.0, Work::Ai), Slice(2.0, "2g.20gb", 2.0, Work::Ai), Slice(2.0, "2g.20gb", 2.0, Work::Ai)];
const HALVES_LAYOUT: &[Slice] = &[Slice(4.0, "4g.40gb", 4.0, Work::Ai), Slice(3.0, "3g.40gb", 4.0, Work::Ai)];

struct Gpu {
    name: &'static str,
    server: usize,
    slices: &'static [Slice],
    /// After it has been cut anew.
    recut: &'static [Slice],
    noise: Noise,
    energy: f64,
    throttled: f64,
    celsius: f64,
}

struct Model {
    name: &'static str,
    /// Requests a second at noon, and tokens a second of one request.
    requests: f64,
    speed: f64,
    noise: Noise,
    ttft: Tally,
    tpot: Tally,
    queue: Tally,
    prompt_tokens: f64,
    tokens: f64,
    finished: f64,
}

/// Devices and models.
pub(super) struct Compute {
    gpus: Vec<Gpu>,
    models: Vec<Model>,
}

impl Compute {
    pub fn new(seed: u64) -> Compute {
        let gpu = |name, server, slices, recut| Gpu {
            name,
            server,
            slices,
            recut,
            noise: Noise::new(seed, name),
            energy: 0.0,
            throttled: 0.0,
            celsius: 45.0,
        };
        let model = |name, requests, speed| Model {
            name,
            requests,
            speed,
            noise: Noise::new(seed, name),
            ttft: Tally::new(&TTFT_BOUNDS),
            tpot: Tally::new(&TPOT_BOUNDS),
            queue: Tally::new(&QUEUE_BOUNDS),
            prompt_tokens: 0.0,
            tokens: 0.0,
            finished: 0.0,
        };
        Compute {
            gpus: vec![
                gpu("demo-gpu-1", 0, RADIO_LAYOUT, RADIO_LAYOUT),
                gpu("demo-gpu-2", 0, &[], &[]),
                gpu("demo-gpu-3", 1, RADIO_LAYOUT, RADIO_LAYOUT),
                gpu("demo-gpu-4", 1, HALVES_LAYOUT, AI_LAYOUT),
            ],
            models: vec![model("demo-70b", 6.0, 35.0), model("demo-8b", 14.0, 90.0)],
        }
    }

    /// One second. `radio` is the load of each server's cells.
    pub fn step(&mut self, drive: Drive, radio: [f64; 2], lines: &mut Vec<Line>) {
        for (index, gpu) in self.gpus.iter_mut().enumerate() {
            let throttling = drive.throttling.filter(|_| index == 1);
            gpu.step(drive, radio[gpu.server], throttling.is_some(), lines);
        }
        for model in &mut self.models {
            // The large model is the one on the GPU that throttles.
            let is_slow = drive.throttling.is_some() && model.name == "demo-70b";
            model.step(drive, is_slow, lines);
        }
    }
}

impl Gpu {
    fn step(&mut self, drive: Drive, radio: f64, is_hot: bool, lines: &mut Vec<Line>) {
        let second = drive.moment.second;
        let layout = if drive.is_recut { self.recut } else { self.slices };
        let busy_of = |work: Work, shift: i64| -> f64 {
            let noise = 0.08 * self.noise.smooth(second + shift * 1_000_003);
            let busy = match work {
                Work::Ran => 0.15 + 0.65 * radio,
                Work::Ai => 0.2 + 0.7 * drive.demand,
            };
            (busy + noise).clamp(0.01, 1.0)
        };
        let slices: Vec<f64> = (1..).zip(layout).map(|(shift, slice)| busy_of(slice.3, shift)).collect();
        let busy = if layout.is_empty() {
            busy_of(Work::Ai, 0) + if is_hot { 0.15 } else { 0.0 }
        } else {
            layout.iter().zip(&slices).map(|(slice, busy)| slice.0 * busy).sum::<f64>() / SLICES
        };
        let busy = busy.clamp(0.01, 1.0);
        let watts = (IDLE_WATTS + (BUSY_WATTS - IDLE_WATTS) * busy) * if is_hot { 0.7 } else { 1.0 };
        self.energy += watts;
        let aim = if is_hot { 92.0 } else { 38.0 + 35.0 * busy };
        self.celsius += (aim - self.celsius) * 0.05;
        self.throttled += if is_hot { 0.8 } else { 0.0 };
        if !drive.is_due(PERIOD) {
            return;
        }
        let node = SERVERS[self.server];
        let is_cut = !layout.is_empty();
        let new = || {
            Line::new("accelerator", node, drive.moment)
                .word("device", self.name)
                .word("model", "simulated 80 GB GPU")
                .word("vendor", "demo")
        };
        let whole = new()
            .whole("mig_mode", if is_cut { 1.0 } else { 0.0 })
            .number("engine_active", busy)
            .number("sm_active", busy * 0.92)
            .number("tensor_active", busy * 0.55)
            .number("dram_active", busy * 0.48)
            .number("memory_used_bytes", MEMORY * (0.2 + 0.7 * busy))
            .number("memory_free_bytes", MEMORY * (0.8 - 0.7 * busy))
            .number("memory_total_bytes", MEMORY)
            .number("power_watts", watts)
            .number("power_limit_watts", 450.0)
            .number("energy_joules", self.energy)
            .number("temperature_celsius", self.celsius)
            .number("sm_clock_hertz", if is_hot { THROTTLED_CLOCK } else { CLOCK })
            .number("sm_clock_max_hertz", 1.98e9)
            .whole("throttle_reasons", if is_hot { THERMAL_BIT } else { 0.0 })
            .number("thermal_throttle_seconds", self.throttled)
            .whole("xid_errors", 0.0)
            .whole("xid_last_code", 0.0)
            .whole("healthy", 1.0);
        lines.push(match is_cut {
            true => whole,
            false => whole
                .number("utilization", (busy * 1.05).min(1.0))
                .word("workload", Work::Ai.workload())
                .word("owner_namespace", Work::Ai.owner().0)
                .word("owner_pod", Work::Ai.owner().1),
        });
        for ((number, slice), busy) in (1..).zip(layout).zip(slices) {
            let Slice(_, profile, eighths, work) = *slice;
            let memory = MEMORY * eighths / 8.0;
            lines.push(
                new()
                    .word("slice", &number.to_string())
                    .word("slice_profile", profile)
                    .word("workload", work.workload())
                    .word("owner_namespace", work.owner().0)
                    .word("owner_pod", work.owner().1)
                    .number("engine_active", busy)
                    .number("sm_active", busy * 0.92)
                    .number("tensor_active", busy * 0.55)
                    .number("memory_used_bytes", memory * (0.2 + 0.7 * busy))
                    .number("memory_free_bytes", memory * (0.8 - 0.7 * busy)),
            );
        }
    }
}

impl Model {
    fn step(&mut self, drive: Drive, is_slow: bool, lines: &mut Vec<Line>) {
        let second = drive.moment.second;
        let slow = if is_slow { 2.6 } else { 1.0 };
        let rate = self.requests * drive.demand * (1.0 + 0.25 * self.noise.smooth(second));
        let crowd = (rate / self.requests).powi(2);
        self.ttft.add(rate, 0.12 * slow * (1.0 + crowd), 3.5);
        self.tpot.add(rate, slow / self.speed, 6.0);
        self.queue.add(rate, 0.02 * slow * (1.0 + 3.0 * crowd), 2.5);
        self.prompt_tokens += rate * 900.0;
        self.tokens += rate * 220.0;
        self.finished += rate;
        if !drive.is_due(PERIOD) {
            return;
        }
        let running = rate * 220.0 * slow / self.speed;
        lines.push(
            Line::new("inference", SERVERS[0], drive.moment)
                .word("server", "demo-llm-1")
                .word("model", self.name)
                .word("engine", "0")
                .word("server_software", "simulated")
                .histogram("time_to_first_token_seconds", &self.ttft)
                .histogram("time_per_output_token_seconds", &self.tpot)
                .histogram("queue_time_seconds", &self.queue)
                .number("requests_running", running.round())
                .number("requests_waiting", ((slow - 1.0) * 6.0 * crowd).round())
                .number("requests_max", 256.0)
                .number("kv_cache_usage_ratio", (running / 160.0).min(0.99))
                .whole("prompt_tokens", self.prompt_tokens)
                .whole("generation_tokens", self.tokens)
                .whole("requests_finished_stop", self.finished),
        );
    }
}
