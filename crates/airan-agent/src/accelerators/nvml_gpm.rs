//! GPM, NVML's performance monitor: how busy the parts of a device were between two looks, and what went over all its NVLinks.
//!
//! Hopper and newer. A measure is made of two samples, so the first look at a device gives none. Samples are the driver's memory: one
//! is kept for each device, and given back when the library is let go.

use std::collections::HashMap;

use nvml_wrapper::enums::gpm::GpmMetricId;
use nvml_wrapper::gpm::gpm_metrics_get;
use nvml_wrapper::{Device, GpmSample, Nvml};

use super::nvml_values::GPM;

/// The last sample of each device, by its UUID.
pub(super) struct Gpm<'nvml> {
    nvml: &'nvml Nvml,
    last: HashMap<String, GpmSample<'nvml>>,
}

impl<'nvml> Gpm<'nvml> {
    pub(super) fn new(nvml: &'nvml Nvml) -> Gpm<'nvml> {
        Gpm { nvml, last: HashMap::new() }
    }

    /// Takes a sample and measures from the one before, in GPM's own units. Empty where there is none, or where the device has no
    /// GPM; a measure that the device does not have is left out.
    pub(super) fn since_last(&mut self, uuid: &str, device: &Device<'nvml>) -> Vec<(GpmMetricId, f64)> {
        if !device.gpm_support().unwrap_or(false) {
            return Vec::new();
        }
        let Ok(sample) = device.gpm_sample() else { return Vec::new() };
        let measures = match self.last.get(uuid) {
            Some(before) => self.between(before, &sample),
            None => Vec::new(),
        };
        self.last.insert(uuid.to_owned(), sample);
        measures
    }

    fn between(&self, before: &GpmSample<'nvml>, now: &GpmSample<'nvml>) -> Vec<(GpmMetricId, f64)> {
        let ids: Vec<GpmMetricId> = GPM.iter().map(|(metric, ..)| *metric).collect();
        let results = gpm_metrics_get(self.nvml, before, now, &ids).unwrap_or_default();
        let measures = results.into_iter().flatten().map(|result| (result.metric_id, result.value));
        measures.filter(|(_, value)| value.is_finite() && *value >= 0.0).collect()
    }
}
