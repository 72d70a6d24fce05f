//! This host's accelerators, without an exporter: NVML where it can be loaded, else what `nvidia-smi` or `rocm-smi` prints.
//!
//! ```text
//!  nvml ──────┐  (each on a thread of its own, with a deadline)
//!  smi_xml ───┤
//!  smi_csv ───┼─▶ Reading ─▶ rows (owner) ─▶ to_rows ─▶ the agent's queue
//!  rocm ──────┘  (what programs print is read in airan_decode::accelerators)
//! ```
//!
//! No driver, no library, no device: no error, but one line in the log and `airan_agent_accelerator_source{source="none"} 1`.
//! With `source: auto` it keeps quiet while a scraped target reports accelerators, so that none is counted twice.

mod command;
mod nvml;
mod nvml_events;
mod nvml_gpm;
mod nvml_values;
mod owner;
mod rows;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use airan_decode::accelerators::{Reading, rocm, smi_csv, smi_xml};
use airan_model::time::{Clock, SECOND};
use tokio_util::sync::CancellationToken;

use crate::agent::Shared;
use crate::rows::to_rows;
use crate::scrape::Schedule;
use crate::settings::{AcceleratorSettings, AcceleratorSource};
use worker::{Requests, SourceError, Worker};

/// The stream, also the collector's name.
pub(crate) const STREAM: &str = "accelerator";

/// Longest time one look may take. Shorter where looks come more often.
const DEADLINE: Duration = Duration::from_secs(10);

/// How often a host without accelerators is looked at again: a driver may be loaded later.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// For how long a scraped target that reported accelerators is trusted to do so: three of the stream's periods.
const SCRAPED_FOR: i64 = 90 * SECOND;

/// Where readings come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// NVIDIA's library.
    Nvml,
    /// NVIDIA's program.
    NvidiaSmi,
    /// AMD's program.
    RocmSmi,
}

impl Origin {
    const ALL: [Origin; 3] = [Origin::Nvml, Origin::NvidiaSmi, Origin::RocmSmi];

    fn as_str(self) -> &'static str {
        match self {
            Origin::Nvml => "nvml",
            Origin::NvidiaSmi => "nvidia-smi",
            Origin::RocmSmi => "rocm-smi",
        }
    }

    /// Those that `source` allows, in the order they are tried.
    fn allowed(source: AcceleratorSource) -> &'static [Origin] {
        match source {
            AcceleratorSource::Auto => &Origin::ALL,
            AcceleratorSource::Nvml => &[Origin::Nvml],
            AcceleratorSource::NvidiaSmi => &[Origin::NvidiaSmi],
            AcceleratorSource::RocmSmi => &[Origin::RocmSmi],
            AcceleratorSource::Off => &[],
        }
    }

    fn start(self, deadline: Duration) -> std::io::Result<Worker> {
        // A command ends before whoever asked gives up.
        let within = deadline.mul_f64(0.8);
        Worker::start(&format!("airan-{}", self.as_str()), move |requests| match self {
            Origin::Nvml => nvml::serve(nvml::LIBRARY.as_ref(), &requests, &Clock::system()),
            Origin::NvidiaSmi => answer(&requests, || nvidia_smi(self.as_str(), within)),
            Origin::RocmSmi => answer(&requests, || rocm_smi(self.as_str(), within)),
        })
    }
}

fn answer(requests: &Requests, mut look: impl FnMut() -> Result<Reading, SourceError>) {
    while let Some(question) = requests.next() {
        question.answer(look());
    }
}

/// XML, which alone has slices and processes; CSV where a driver's XML cannot be read.
fn nvidia_smi(program: &str, within: Duration) -> Result<Reading, SourceError> {
    let begin = Instant::now();
    let xml = command::run(program, &["-q", "-x"], within.mul_f64(0.6))
        .and_then(without_devices)
        .and_then(|text| Ok(smi_xml::read(&text)?));
    let Err(SourceError::Failed(why)) = xml else { return devices(xml) };
    let left = within.saturating_sub(begin.elapsed());
    let csv = command::run(program, &[smi_csv::QUERY, "--format=csv"], left)
        .and_then(without_devices)
        .and_then(|text| Ok(smi_csv::read(&text)?));
    match csv {
        Err(SourceError::Failed(too)) => Err(SourceError::Failed(format!("{why}; and {too}"))),
        csv => devices(csv),
    }
}

fn rocm_smi(program: &str, within: Duration) -> Result<Reading, SourceError> {
    let printed = command::run(program, &rocm::QUERY, within)?;
    if printed.code != Some(0) && !printed.text.contains('{') {
        return Err(SourceError::Failed(format!(
            "rocm-smi ended with {:?}: {}",
            printed.code,
            start_of(&printed.text)
        )));
    }
    devices(rocm::read(&printed.text).map_err(SourceError::from))
}

/// nvidia-smi says on its output that there is no driver (status 9) or no device (6); see its manual page, "Return value".
fn without_devices(printed: command::Printed) -> Result<String, SourceError> {
    match printed.code {
        Some(0) => Ok(printed.text),
        Some(6 | 9) => Err(SourceError::Absent(format!("nvidia-smi: {}", start_of(&printed.text)))),
        code => Err(SourceError::Failed(format!("nvidia-smi ended with {code:?}: {}", start_of(&printed.text)))),
    }
}

/// A reading without a device says that there is none.
fn devices(reading: Result<Reading, SourceError>) -> Result<Reading, SourceError> {
    match reading {
        Ok(reading) if reading.entries.is_empty() => Err(SourceError::Absent("no device".to_owned())),
        reading => reading,
    }
}

fn start_of(text: &str) -> String {
    text.trim().chars().take(120).map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// What was found, and what is known of the other ways.
struct Sources {
    allowed: &'static [Origin],
    // Started when first asked, and kept: one that hangs must not be started again.
    workers: Vec<(Origin, Worker)>,
    chosen: Option<Origin>,
    deadline: Duration,
}

impl Sources {
    fn new(settings: &AcceleratorSettings) -> Sources {
        let deadline = settings.interval.get().min(DEADLINE);
        Sources { allowed: Origin::allowed(settings.source), workers: Vec::new(), chosen: None, deadline }
    }

    async fn ask(&mut self, origin: Origin) -> Result<Reading, SourceError> {
        let worker = match self.workers.iter().find(|(known, _)| *known == origin) {
            Some((_, worker)) => worker.clone(),
            None => {
                let started = origin.start(self.deadline);
                let worker = started.map_err(|error| SourceError::Failed(format!("cannot start a thread: {error}")))?;
                self.workers.push((origin, worker.clone()));
                worker
            }
        };
        let reading = worker.read(self.deadline).await;
        if matches!(reading, Err(SourceError::Ended)) {
            self.workers.retain(|(known, _)| *known != origin);
        }
        reading
    }

    /// Asks what was chosen, or else each in turn until one has a device. One that is there but fails is told over one that is
    /// not there.
    async fn look(&mut self) -> Result<(Origin, Reading), SourceError> {
        if let Some(origin) = self.chosen {
            match self.ask(origin).await {
                Err(SourceError::Absent(_)) if self.allowed.len() > 1 => self.chosen = None,
                reading => return reading.map(|reading| (origin, reading)),
            }
        }
        let mut told: Option<SourceError> = None;
        for origin in self.allowed {
            match self.ask(*origin).await {
                Ok(reading) => {
                    self.chosen = Some(*origin);
                    return Ok((*origin, reading));
                }
                Err(error) => match (&told, &error) {
                    (Some(known), SourceError::Absent(_)) if !matches!(known, SourceError::Absent(_)) => {}
                    (Some(SourceError::Absent(first)), SourceError::Absent(more)) => {
                        told = Some(SourceError::Absent(format!("{first}; {more}")));
                    }
                    _ => told = Some(error),
                },
            }
        }
        Err(told.unwrap_or_else(|| SourceError::Absent("switched off".to_owned())))
    }
}

/// Looks at the accelerators at every mark of its schedule until `stop`.
///
/// With `source: auto` the first look comes after `patience`: by then every target has been scraped once, and it is known whether
/// one of them reports accelerators. A source that hangs makes its looks fail and nothing else wait: not another collector, not the end of the process.
pub(crate) async fn run(
    settings: AcceleratorSettings,
    proc_path: PathBuf,
    patience: Duration,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let begin = Instant::now();
    let schedule = Schedule::new(&format!("{}/{STREAM}", shared.node), settings.interval.micros());
    let auto = settings.source == AcceleratorSource::Auto;
    let mut sources = Sources::new(&settings);
    let mut state = Told::Nothing;
    let mut absent_since: Option<Instant> = None;
    loop {
        tokio::select! {
            () = shared.until(schedule.next(shared.clock.now())) => {}
            () = stop.cancelled() => return,
        }
        if auto && shared.clock.now() - shared.accelerators_scraped.load(Ordering::Relaxed) < SCRAPED_FOR {
            state.tell(Told::Scraped, || {
                tracing::info!("a scraped target reports accelerators: this agent's own look is off")
            });
            source_is(&shared, "scraped", 0);
            continue;
        }
        if auto && (begin.elapsed() < patience || absent_since.is_some_and(|since| since.elapsed() < LOOK_AGAIN)) {
            continue;
        }
        let timer = shared.metrics.accelerator_seconds.start_timer();
        let looked = tokio::select! {
            looked = sources.look() => looked,
            () = stop.cancelled() => return,
        };
        match looked {
            Ok((origin, reading)) => {
                timer.observe_duration();
                absent_since = None;
                let devices = reading.devices();
                let say = || tracing::info!(source = origin.as_str(), devices, "collecting from accelerators works");
                state.tell(Told::Works(origin), say);
                source_is(&shared, origin.as_str(), devices);
                take(reading, origin, &proc_path, &shared);
            }
            Err(SourceError::Absent(why)) if auto => {
                timer.stop_and_discard();
                absent_since = Some(Instant::now());
                state.tell(Told::Absent, || tracing::info!(why, "this host has no accelerator that can be read"));
                source_is(&shared, "none", 0);
            }
            Err(error) => {
                timer.stop_and_discard();
                shared.metrics.collections.with_label_values(&[STREAM, "failure"]).inc();
                let reason = crate::uplink::plain(&error);
                state.tell(Told::Fails, || tracing::warn!(reason, "collecting from accelerators fails"));
            }
        }
    }
}

/// What was said last in the log: each state is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Works(Origin),
    Absent,
    Scraped,
    Fails,
}

impl Told {
    fn tell(&mut self, state: Told, say: impl FnOnce()) {
        if *self != state {
            say();
            *self = state;
        }
    }
}

fn source_is(shared: &Shared, name: &str, devices: usize) {
    let origins = Origin::ALL.map(Origin::as_str);
    for source in origins.iter().chain(&["none", "scraped"]) {
        shared.metrics.accelerator_source.with_label_values(&[source]).set(i64::from(*source == name));
    }
    shared.metrics.accelerator_devices.set(devices as i64);
}

fn take(reading: Reading, origin: Origin, proc_path: &std::path::Path, shared: &Arc<Shared>) {
    let Reading { entries, xids, xids_dropped, unread } = reading;
    shared.metrics.accelerator_unread.inc_by(unread.len() as u64);
    if !unread.is_empty() {
        tracing::debug!(source = origin.as_str(), fields = ?unread, "fields that could not be read");
    }
    shared.metrics.accelerator_events_dropped.inc_by(xids_dropped);
    let now = shared.clock.now();
    let mut outcome = "success";
    let mut enqueue = |stream: &str, ts, readings: &[crate::rows::Reading]| {
        let rows = match shared.catalog.stream(stream) {
            Some(stream) => to_rows(stream, &shared.node, ts, None, readings).map_err(|error| error.to_string()),
            None => Err(format!("the catalog has no stream {stream}")),
        };
        match rows {
            Ok(rows) => shared.enqueue(STREAM, origin.as_str(), rows),
            Err(reason) => {
                outcome = "failure";
                tracing::error!(reason, stream, "readings of accelerators are lost");
            }
        }
    };
    enqueue(STREAM, now, &rows::accelerators(entries, proc_path));
    for xid in &xids {
        enqueue("event", xid.at, &[rows::event(xid)]);
    }
    shared.metrics.collections.with_label_values(&[STREAM, outcome]).inc();
}

#[cfg(test)]
mod nvml_tests;
#[cfg(test)]
mod printed_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
