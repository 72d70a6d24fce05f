//! A reading as rows of streams `accelerator` and `event`.

use std::path::Path;

use airan_decode::accelerators::{Entry, Xid};

use super::owner;
use crate::rows;

/// Rows of `accelerator`, with owners where processes were told.
pub(crate) fn accelerators(entries: Vec<Entry>, proc_path: &Path) -> Vec<rows::Reading> {
    let row = |mut entry: Entry| {
        owner::fill(&mut entry, proc_path);
        let mut entity = vec![("device", entry.device)];
        entity.extend(entry.slice.map(|slice| ("slice", slice)));
        rows::Reading { entity, numbers: entry.numbers, texts: entry.texts }
    };
    entries.into_iter().map(row).collect()
}

/// A row of `event`. NVML tells only errors that it calls critical.
pub(crate) fn event(xid: &Xid) -> rows::Reading {
    let message = match xid.code {
        Some(code) => format!("XID {code} on {}", xid.device),
        None => format!("XID error without a code on {}", xid.device),
    };
    let texts = vec![
        ("type", "xid".to_owned()),
        ("name", "XidCriticalError".to_owned()),
        ("severity", "critical".to_owned()),
        ("message", message),
    ];
    let numbers = xid.code.map(|code| ("code", code as f64)).into_iter().collect();
    rows::Reading { entity: vec![("object", xid.device.clone())], numbers, texts }
}
