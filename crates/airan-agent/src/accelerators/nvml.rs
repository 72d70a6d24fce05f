//! NVML, loaded at run time: asks the driver about each device, and listens for XID errors in between.
//!
//! Runs on a thread of its own (see [`super::worker`]), for every call may block. One call that a device does not support leaves
//! its value out; nothing else is an error but a library or a driver that is not there, or that has lost its devices.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use airan_model::time::{Clock as WallClock, Micros};
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{
    Clock, ComputeMode, EccCounter, MemoryError, PcieUtilCounter, PerformanceState, TemperatureSensor,
};
use nvml_wrapper::enums::device::{SampleValue, UsedGpuMemory};
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::{Device, EventSet, Nvml};

use super::nvml_values::{self, FIELDS, Said, SliceSaid};
use super::reading::{Process, Reading, Xid};
use super::worker::{Next, Question, Requests, SourceError};

/// How long one wait for an XID error may take, and so how much later a question may be answered.
const LISTEN: Duration = Duration::from_millis(200);

/// Most XID errors that wait for the next look. Over it the newest are dropped and counted.
const XIDS_MAX: usize = 1_000;

/// Most NVLinks of a device (`NVML_NVLINK_MAX_LINKS` of CUDA 12).
const NVLINKS_MAX: u32 = 18;

/// Most MIG devices of one device: seven, doubled for what is to come.
const SLICES_MAX: u32 = 16;

/// Answers questions until nobody asks any more. Loads the library at the first one, and again when it has lost its driver.
pub(crate) fn serve(requests: &Requests, clock: &WallClock) {
    while let Some(question) = requests.next() {
        match Nvml::init() {
            Err(error) => question.answer(Err(not_there(&error))),
            Ok(nvml) => {
                if with_library(&nvml, requests, clock, question) == After::Ended {
                    return;
                }
            }
        }
    }
}

/// What is to be done when [`with_library`] is through.
#[derive(PartialEq, Eq)]
enum After {
    /// Load the library again at the next question.
    Reload,
    /// Nobody asks any more.
    Ended,
}

fn with_library(nvml: &Nvml, requests: &Requests, clock: &WallClock, first: Question) -> After {
    let mut events = Events { set: listen(nvml), waiting: VecDeque::new(), dropped: 0, seen: HashMap::new() };
    let mut question = Some(first);
    loop {
        if let Some(question) = question.take() {
            let reading = read(nvml, &mut events);
            let reload = reading.is_err();
            question.answer(reading);
            if reload {
                return After::Reload;
            }
        }
        // Without a set of events the wait is for a question alone.
        let wait = if events.set.is_some() { Duration::ZERO } else { LISTEN };
        match requests.next_within(wait) {
            Next::Asked(asked) => question = Some(asked),
            Next::Ended => return After::Ended,
            Next::Nothing => events.wait(clock),
        }
    }
}

/// The library, the driver or a device that is not there is no fault; anything else is.
fn not_there(error: &NvmlError) -> SourceError {
    match error {
        NvmlError::LibloadingError(_)
        | NvmlError::LibraryNotFound
        | NvmlError::FailedToLoadSymbol(_)
        | NvmlError::DriverNotLoaded => SourceError::Absent(format!("NVML cannot be loaded: {error}")),
        _ => SourceError::Failed(format!("NVML: {error}")),
    }
}

fn read(nvml: &Nvml, events: &mut Events<'_>) -> Result<Reading, SourceError> {
    let count = nvml.device_count().map_err(|error| not_there(&error))?;
    if count == 0 {
        return Err(SourceError::Absent("NVML knows no device".to_owned()));
    }
    let driver = nvml.sys_driver_version().ok();
    let mut reading = Reading::default();
    for index in 0..count {
        match nvml.device_by_index(index) {
            Ok(device) => {
                if let Some(mut said) = said(&device, index) {
                    said.driver_version.clone_from(&driver);
                    said.xids = events.set.is_some().then(|| events.seen.get(&said.uuid).copied().unwrap_or_default());
                    reading.entries.extend(nvml_values::entries(&said));
                }
            }
            Err(error @ (NvmlError::Uninitialized | NvmlError::Unknown)) => return Err(not_there(&error)),
            // One device that has fallen off the bus does not take the others with it.
            Err(error) => reading.not_read(&format!("device {index}"), &error.to_string()),
        }
    }
    reading.xids = events.waiting.drain(..).collect();
    reading.xids_dropped = std::mem::take(&mut events.dropped);
    Ok(reading)
}

/// What the driver says about a device. None where it does not even say its UUID.
fn said(device: &Device<'_>, index: u32) -> Option<Said> {
    let utilization = device.utilization_rates().ok();
    let limits = device.power_management_limit_constraints().ok();
    let encoder = device.encoder_stats().ok();
    let memory = |device: &Device<'_>| device.memory_info().ok().map(|m| [m.total, m.reserved, m.used, m.free]);
    let ecc = |kind: MemoryError, since: EccCounter| device.total_ecc_errors(kind, since).ok();
    let mig = device.mig_mode().ok().map(|mode| mode.current == 1);
    let (processes, processes_known) = processes(device);
    let slices = if mig == Some(true) { slices(device, &memory) } else { Vec::new() };
    Some(Said {
        uuid: device.uuid().ok()?,
        index: Some(index),
        name: device.name().ok(),
        pci_bus_id: device.pci_info().ok().map(|pci| pci.bus_id),
        driver_version: None,
        vbios_version: device.vbios_version().ok(),
        utilization: [
            utilization.as_ref().map(|rates| rates.gpu),
            utilization.as_ref().map(|rates| rates.memory),
            device.encoder_utilization().ok().map(|rate| rate.utilization),
            device.decoder_utilization().ok().map(|rate| rate.utilization),
        ],
        encoder: encoder.map(|stats| [stats.session_count, stats.average_fps, stats.average_latency]),
        memory: memory(device),
        power: [
            device.power_usage().ok(),
            device.enforced_power_limit().ok(),
            device.power_management_limit().ok(),
            device.power_management_limit_default().ok(),
            limits.as_ref().map(|limits| limits.min_limit),
            limits.as_ref().map(|limits| limits.max_limit),
        ],
        energy: device.total_energy_consumption().ok(),
        temperature: device.temperature(TemperatureSensor::Gpu).ok(),
        fan: device.fan_speed(0).ok(),
        clocks: [Clock::SM, Clock::Memory, Clock::Graphics, Clock::Video].map(|clock| device.clock_info(clock).ok()),
        clocks_max: [Clock::SM, Clock::Memory, Clock::Graphics].map(|clock| device.max_clock_info(clock).ok()),
        throttle_reasons: device.current_throttle_reasons().ok().map(|reasons| reasons.bits()),
        performance_state: device.performance_state().ok().and_then(performance_state),
        pcie: [PcieUtilCounter::Send, PcieUtilCounter::Receive].map(|way| device.pcie_throughput(way).ok()),
        pcie_replays: device.pcie_replay_counter().ok(),
        pcie_link: [
            device.current_pcie_link_gen().ok(),
            device.max_pcie_link_gen().ok(),
            device.current_pcie_link_width().ok(),
            device.max_pcie_link_width().ok(),
        ],
        nvlinks: nvlinks(device),
        ecc: [
            ecc(MemoryError::Corrected, EccCounter::Volatile),
            ecc(MemoryError::Uncorrected, EccCounter::Volatile),
            ecc(MemoryError::Corrected, EccCounter::Aggregate),
            ecc(MemoryError::Uncorrected, EccCounter::Aggregate),
        ],
        mig,
        ecc_mode: device.is_ecc_enabled().ok().map(|mode| mode.currently_enabled),
        persistence: device.is_in_persistent_mode().ok(),
        compute_mode: device.compute_mode().ok().map(compute_mode),
        fields: fields(device),
        xids: None,
        processes,
        processes_known,
        slices,
    })
}

fn slices(device: &Device<'_>, memory: &dyn Fn(&Device<'_>) -> Option<[u64; 4]>) -> Vec<SliceSaid> {
    let most = device.mig_device_count().unwrap_or(0).min(SLICES_MAX);
    let said = |index| {
        let slice = device.mig_device_by_index(index).ok()?;
        let attributes = slice.attributes().ok();
        let (processes, processes_known) = processes(&slice);
        Some(SliceSaid {
            uuid: slice.uuid().ok()?,
            name: slice.name().ok(),
            attributes: attributes
                .map(|a| (a.gpu_instance_slice_count, a.compute_instance_slice_count, a.memory_size_mb)),
            memory: memory(&slice),
            processes,
            processes_known,
        })
    };
    // Numbers of slices that do not exist answer "not found".
    (0..most).filter_map(said).collect()
}

/// Compute and graphics processes, and whether the driver told the former. One that is both counts once.
fn processes(device: &Device<'_>) -> (Vec<Process>, bool) {
    let process = |info: &ProcessInfo, compute| Process {
        pid: info.pid,
        name: None,
        memory_bytes: match info.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        },
        compute,
    };
    let compute = device.running_compute_processes();
    let known = compute.is_ok();
    let mut processes: Vec<Process> = compute.unwrap_or_default().iter().map(|info| process(info, true)).collect();
    for info in device.running_graphics_processes().unwrap_or_default() {
        if !processes.iter().any(|process| process.pid == info.pid) {
            processes.push(process(&info, false));
        }
    }
    (processes, known)
}

/// How many links are up; None for a device without any.
fn nvlinks(device: &Device<'_>) -> Option<u32> {
    let links: Vec<bool> = (0..NVLINKS_MAX).map_while(|link| device.link_wrapper_for(link).is_active().ok()).collect();
    (!links.is_empty()).then(|| links.into_iter().filter(|up| *up).count() as u32)
}

/// Answers come in the order of the questions; the numbers in them are the driver's own.
fn fields(device: &Device<'_>) -> Vec<(u32, f64)> {
    let ids: Vec<FieldId> = FIELDS.iter().map(|(number, ..)| FieldId(*number)).collect();
    let samples = device.field_values_for(&ids).unwrap_or_default();
    let value = |sample: Result<nvml_wrapper::struct_wrappers::device::FieldValueSample, NvmlError>| {
        Some(match sample.ok()?.value.ok()? {
            SampleValue::F64(value) => value,
            SampleValue::U32(value) => f64::from(value),
            SampleValue::U64(value) => value as f64,
            SampleValue::I64(value) => value as f64,
        })
    };
    FIELDS.iter().zip(samples).filter_map(|((number, ..), sample)| Some((*number, value(sample)?))).collect()
}

fn performance_state(state: PerformanceState) -> Option<u32> {
    let state = state.as_c();
    (state < 16).then_some(state)
}

fn compute_mode(mode: ComputeMode) -> u32 {
    mode.as_c()
}

/// XID errors since the last look.
struct Events<'nvml> {
    // None: no device tells XID errors, or the driver does not let this process listen.
    set: Option<EventSet<'nvml>>,
    waiting: VecDeque<Xid>,
    dropped: u64,
    // By device: how many since this process listens, and the last one's code.
    seen: HashMap<String, (u64, u64)>,
}

impl Events<'_> {
    /// Waits for one event, at most [`LISTEN`].
    fn wait(&mut self, clock: &WallClock) {
        let Some(set) = &self.set else { return };
        match set.wait(LISTEN.as_millis() as u32) {
            Ok(event) if event.event_type.contains(EventTypes::CRITICAL_XID_ERROR) => {
                let code = match event.event_data {
                    Some(XidError::Value(code)) => Some(code),
                    Some(XidError::Unknown) | None => None,
                };
                let device = event.device.uuid().unwrap_or_default();
                self.take(clock.now(), device, code);
            }
            Ok(_) | Err(NvmlError::Timeout) => {}
            // Would otherwise come back at once, over and over.
            Err(error) => {
                tracing::warn!(%error, "listening for XID errors fails: none will be told until the driver is loaded again");
                self.set = None;
            }
        }
    }

    fn take(&mut self, at: Micros, device: String, code: Option<u64>) {
        let seen = self.seen.entry(device.clone()).or_default();
        *seen = (seen.0 + 1, code.unwrap_or(seen.1));
        if self.waiting.len() < XIDS_MAX {
            self.waiting.push_back(Xid { at, device, code });
        } else {
            self.dropped += 1;
        }
    }
}

/// A set with the XID errors of every device that tells them. A device that refuses costs the whole set, so it is left out of the
/// next try.
fn listen(nvml: &Nvml) -> Option<EventSet<'_>> {
    let count = nvml.device_count().ok()?;
    let tells = |index: &u32| {
        let types = nvml.device_by_index(*index).and_then(|device| device.supported_event_types());
        types.is_ok_and(|types| types.contains(EventTypes::CRITICAL_XID_ERROR))
    };
    let mut devices: Vec<u32> = (0..count).filter(tells).collect();
    'again: while !devices.is_empty() {
        let mut set = nvml.create_event_set().ok()?;
        for (at, index) in devices.iter().enumerate() {
            let device = nvml.device_by_index(*index).ok()?;
            match device.register_events(EventTypes::CRITICAL_XID_ERROR, set) {
                Ok(with) => set = with,
                Err(error) => {
                    tracing::info!(device = index, %error, "XID errors of a device cannot be listened for");
                    devices.remove(at);
                    continue 'again;
                }
            }
        }
        return Some(set);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: more XID errors than fit between two looks.
    /// Guarantees: the queue is bounded, what is dropped is counted, and the counter counts all.
    #[test]
    fn xid_errors_wait_in_a_bounded_queue() {
        let mut events = Events { set: None, waiting: VecDeque::new(), dropped: 0, seen: HashMap::new() };
        for code in 0..XIDS_MAX as u64 + 5 {
            events.take(7, "GPU-1".into(), Some(code));
        }
        events.take(8, "GPU-1".into(), None);
        assert_eq!((events.waiting.len(), events.dropped), (XIDS_MAX, 6));
        assert_eq!(events.seen["GPU-1"], (XIDS_MAX as u64 + 6, XIDS_MAX as u64 + 4));
        assert_eq!(events.waiting[0], Xid { at: 7, device: "GPU-1".into(), code: Some(0) });
    }
}
