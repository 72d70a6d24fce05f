//! NVML, loaded at run time: asks the driver about each device, and listens for XID errors in between.
//!
//! Runs on a thread of its own (see [`super::worker`]), for every call may block. One call that a device does not support leaves
//! its value out; nothing else is an error but a library or a driver that is not there, or that has lost its devices. A device that
//! is lost while it is asked is a row that says so.

use std::cell::Cell;
use std::ffi::OsStr;
use std::time::Duration;

use airan_decode::accelerators::{Process, Reading};
use airan_model::time::Clock as WallClock;
use nvml_wrapper::enum_wrappers::device::{
    Clock, ComputeMode, EccCounter, MemoryError, PcieUtilCounter, PerformanceState, TemperatureSensor,
};
use nvml_wrapper::enums::device::{SampleValue, UsedGpuMemory};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::{Device, Nvml};

use super::nvml_events::{self, Events, LISTEN};
use super::nvml_gpm::Gpm;
use super::nvml_values::{self, FIELDS, FIELDS_OF_ONE_LINK, Said, SliceSaid};
use super::worker::{Next, Question, Requests, SourceError};

/// The library's name, which the loader finds where the driver was installed.
pub(crate) const LIBRARY: &str = "libnvidia-ml.so.1";

/// Most NVLinks of a device (`NVML_NVLINK_MAX_LINKS` of CUDA 12).
const NVLINKS_MAX: u32 = 18;

/// Most MIG devices of one device: seven, doubled for what is to come.
const SLICES_MAX: u32 = 16;

/// Answers questions until nobody asks any more. Loads `library`, a name or a path, at the first one, and again when it has lost its
/// driver.
pub(crate) fn serve(library: &OsStr, requests: &Requests, clock: &WallClock) {
    while let Some(question) = requests.next() {
        match Nvml::builder().lib_path(library).init() {
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
    let mut events = nvml_events::listen(nvml);
    let mut gpm = Gpm::new(nvml);
    let mut question = Some(first);
    loop {
        if let Some(question) = question.take() {
            let reading = read(nvml, &mut events, &mut gpm);
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

fn read<'nvml>(nvml: &'nvml Nvml, events: &mut Events<'_>, gpm: &mut Gpm<'nvml>) -> Result<Reading, SourceError> {
    let count = nvml.device_count().map_err(|error| not_there(&error))?;
    if count == 0 {
        return Err(SourceError::Absent("NVML knows no device".to_owned()));
    }
    let driver = nvml.sys_driver_version().ok();
    let mut reading = Reading::default();
    for index in 0..count {
        let device = nvml.device_by_index(index);
        match device.and_then(|device| said(&device, index, gpm)) {
            Ok(mut said) => {
                said.driver_version.clone_from(&driver);
                said.xids = events.seen.get(&said.uuid).copied();
                reading.entries.extend(nvml_values::entries(&said));
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

/// What calls answered, and whether one of them said that the device is gone.
#[derive(Default)]
struct Answers {
    lost: Cell<bool>,
}

impl Answers {
    /// The value; None where the device does not know it, or this process may not.
    fn ok<T>(&self, answer: Result<T, NvmlError>) -> Option<T> {
        if matches!(answer, Err(NvmlError::GpuLost | NvmlError::ResetRequired)) {
            self.lost.set(true);
        }
        answer.ok()
    }
}

/// What the driver says about a device.
///
/// # Errors
/// Where it does not even say its UUID. A device that is lost while it is asked keeps its identity and nothing else: what it said
/// before may be of any age.
fn said<'nvml>(device: &Device<'nvml>, index: u32, gpm: &mut Gpm<'nvml>) -> Result<Said, NvmlError> {
    let answers = Answers::default();
    let uuid = device.uuid()?;
    let identity = Said {
        index: Some(index),
        name: answers.ok(device.name()),
        pci_bus_id: answers.ok(device.pci_info()).map(|pci| pci.bus_id),
        vbios_version: answers.ok(device.vbios_version()),
        gpm: gpm.since_last(&uuid, device),
        uuid,
        ..Said::default()
    };
    let said = measured(device, &answers, identity.clone());
    Ok(if answers.lost.get() { Said { lost: true, gpm: Vec::new(), ..identity } } else { said })
}

fn measured(device: &Device<'_>, answers: &Answers, identity: Said) -> Said {
    let utilization = answers.ok(device.utilization_rates());
    let limits = answers.ok(device.power_management_limit_constraints());
    let encoder = answers.ok(device.encoder_stats());
    let memory = |device: &Device<'_>| {
        let memory = answers.ok(device.memory_info())?;
        Some([memory.total, memory.reserved, memory.used, memory.free])
    };
    let ecc = |kind: MemoryError, since: EccCounter| answers.ok(device.total_ecc_errors(kind, since));
    let mig = answers.ok(device.mig_mode()).map(|mode| mode.current == 1);
    let (processes, processes_known) = processes(device);
    let slices = if mig == Some(true) { slices(device, &memory) } else { Vec::new() };
    let links = nvlinks(device);
    Said {
        utilization: [
            utilization.as_ref().map(|rates| rates.gpu),
            utilization.as_ref().map(|rates| rates.memory),
            answers.ok(device.encoder_utilization()).map(|rate| rate.utilization),
            answers.ok(device.decoder_utilization()).map(|rate| rate.utilization),
        ],
        encoder: encoder.map(|stats| [stats.session_count, stats.average_fps, stats.average_latency]),
        memory: memory(device),
        power: [
            answers.ok(device.power_usage()),
            answers.ok(device.enforced_power_limit()),
            answers.ok(device.power_management_limit()),
            answers.ok(device.power_management_limit_default()),
            limits.as_ref().map(|limits| limits.min_limit),
            limits.as_ref().map(|limits| limits.max_limit),
        ],
        energy: answers.ok(device.total_energy_consumption()),
        temperature: answers.ok(device.temperature(TemperatureSensor::Gpu)),
        fan: answers.ok(device.fan_speed(0)),
        clocks: [Clock::SM, Clock::Memory, Clock::Graphics, Clock::Video]
            .map(|clock| answers.ok(device.clock_info(clock))),
        clocks_max: [Clock::SM, Clock::Memory, Clock::Graphics].map(|clock| answers.ok(device.max_clock_info(clock))),
        throttle_reasons: answers.ok(device.current_throttle_reasons()).map(|reasons| reasons.bits()),
        performance_state: answers.ok(device.performance_state()).and_then(performance_state),
        pcie: [PcieUtilCounter::Send, PcieUtilCounter::Receive].map(|way| answers.ok(device.pcie_throughput(way))),
        pcie_replays: answers.ok(device.pcie_replay_counter()),
        pcie_link: [
            answers.ok(device.current_pcie_link_gen()),
            answers.ok(device.max_pcie_link_gen()),
            answers.ok(device.current_pcie_link_width()),
            answers.ok(device.max_pcie_link_width()),
        ],
        nvlinks: (!links.is_empty()).then(|| links.iter().filter(|up| **up).count() as u32),
        ecc: [
            ecc(MemoryError::Corrected, EccCounter::Volatile),
            ecc(MemoryError::Uncorrected, EccCounter::Volatile),
            ecc(MemoryError::Corrected, EccCounter::Aggregate),
            ecc(MemoryError::Uncorrected, EccCounter::Aggregate),
        ],
        mig,
        ecc_mode: answers.ok(device.is_ecc_enabled()).map(|mode| mode.currently_enabled),
        persistence: answers.ok(device.is_in_persistent_mode()),
        compute_mode: answers.ok(device.compute_mode()).map(compute_mode),
        fields: fields(device, links.len() == 1),
        processes,
        processes_known,
        slices,
        ..identity
    }
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

/// Whether each link is up; none for a device without any.
fn nvlinks(device: &Device<'_>) -> Vec<bool> {
    (0..NVLINKS_MAX).map_while(|link| device.link_wrapper_for(link).is_active().ok()).collect()
}

/// Answers come in the order of the questions; the numbers in them are the driver's own.
fn fields(device: &Device<'_>, one_link: bool) -> Vec<(u32, f64)> {
    let of_link = if one_link { FIELDS_OF_ONE_LINK } else { &[] };
    let asked = || FIELDS.iter().chain(of_link);
    let ids: Vec<FieldId> = asked().map(|(number, ..)| FieldId(*number)).collect();
    let samples = device.field_values_for(&ids).unwrap_or_default();
    let value = |sample: Result<nvml_wrapper::struct_wrappers::device::FieldValueSample, NvmlError>| {
        Some(match sample.ok()?.value.ok()? {
            SampleValue::F64(value) => value,
            SampleValue::U32(value) => f64::from(value),
            SampleValue::U64(value) => value as f64,
            SampleValue::I64(value) => value as f64,
        })
    };
    asked().zip(samples).filter_map(|((number, ..), sample)| Some((*number, value(sample)?))).collect()
}

fn performance_state(state: PerformanceState) -> Option<u32> {
    let state = state.as_c();
    (state < 16).then_some(state)
}

fn compute_mode(mode: ComputeMode) -> u32 {
    mode.as_c()
}
