//! XID errors: what NVML's events say between two looks.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use airan_decode::accelerators::Xid;
use airan_model::time::{Clock, Micros};
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{EventSet, Nvml};

/// How long one wait for an XID error may take, and so how much later a question may be answered.
pub(super) const LISTEN: Duration = Duration::from_millis(200);

/// Most XID errors that wait for the next look. Over it the newest are dropped and counted.
const XIDS_MAX: usize = 1_000;

/// XID errors since the last look.
#[derive(Default)]
pub(super) struct Events<'nvml> {
    // None: no device tells XID errors, or the driver does not let this process listen.
    pub(super) set: Option<EventSet<'nvml>>,
    pub(super) waiting: VecDeque<Xid>,
    pub(super) dropped: u64,
    // By device that is listened to: how many since this process listens, and the last one's code.
    pub(super) seen: HashMap<String, (u64, u64)>,
}

impl Events<'_> {
    /// Waits for one event, at most [`LISTEN`].
    pub(super) fn wait(&mut self, clock: &Clock) {
        let Some(set) = &self.set else { return };
        match set.wait(LISTEN.as_millis() as u32) {
            Ok(event) if event.event_type.contains(EventTypes::CRITICAL_XID_ERROR) => {
                let code = match event.event_data {
                    Some(XidError::Value(code)) => Some(code),
                    Some(XidError::Unknown) | None => None,
                };
                // Of a device that has fallen off the bus, XID 79, the driver may not even say the UUID.
                let device = event.device.uuid().unwrap_or_else(|_| "unknown".to_owned());
                self.take(clock.now(), device, code);
            }
            Ok(_) | Err(NvmlError::Timeout) => {}
            // Would otherwise come back at once, over and over.
            Err(error) => {
                tracing::warn!(%error, "listening for XID errors fails: none will be told until the driver is loaded again");
                self.set = None;
                self.seen.clear();
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

/// Listens to the XID errors of every device that tells them. A device that refuses costs the whole set, so it is left out of the
/// next try.
pub(super) fn listen(nvml: &Nvml) -> Events<'_> {
    let count = nvml.device_count().unwrap_or(0);
    let tells = |index: &u32| {
        let types = nvml.device_by_index(*index).and_then(|device| device.supported_event_types());
        types.is_ok_and(|types| types.contains(EventTypes::CRITICAL_XID_ERROR))
    };
    let mut devices: Vec<u32> = (0..count).filter(tells).collect();
    while !devices.is_empty() {
        match register(nvml, &devices) {
            Ok((set, uuids)) => {
                let seen = uuids.into_iter().map(|uuid| (uuid, (0, 0))).collect();
                return Events { set: Some(set), seen, ..Events::default() };
            }
            Err((at, error)) => {
                tracing::info!(device = devices[at], %error, "XID errors of a device cannot be listened for");
                devices.remove(at);
            }
        }
    }
    Events::default()
}

/// A set of these devices, and their UUIDs; or else which of them refuses.
fn register<'nvml>(nvml: &'nvml Nvml, devices: &[u32]) -> Result<(EventSet<'nvml>, Vec<String>), (usize, NvmlError)> {
    let mut set = nvml.create_event_set().map_err(|error| (0, error))?;
    let mut uuids = Vec::with_capacity(devices.len());
    for (at, index) in devices.iter().enumerate() {
        let device = nvml.device_by_index(*index).map_err(|error| (at, error))?;
        uuids.push(device.uuid().map_err(|error| (at, error))?);
        set = device.register_events(EventTypes::CRITICAL_XID_ERROR, set).map_err(|refused| (at, refused.error))?;
    }
    Ok((set, uuids))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: more XID errors than fit between two looks.
    /// Guarantees: the queue is bounded, what is dropped is counted, and the counter counts all.
    #[test]
    fn xid_errors_wait_in_a_bounded_queue() {
        let mut events = Events::default();
        for code in 0..XIDS_MAX as u64 + 5 {
            events.take(7, "GPU-1".into(), Some(code));
        }
        events.take(8, "GPU-1".into(), None);
        assert_eq!((events.waiting.len(), events.dropped), (XIDS_MAX, 6));
        assert_eq!(events.seen["GPU-1"], (XIDS_MAX as u64 + 6, XIDS_MAX as u64 + 4));
        assert_eq!(events.waiting[0], Xid { at: 7, device: "GPU-1".into(), code: Some(0) });
    }
}
