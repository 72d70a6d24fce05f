//! What one look at the accelerators gave, whatever was asked: a plain value, so that everything after it is tested without a device.

use airan_model::time::Micros;

/// One look at all devices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Devices and their MIG slices.
    pub entries: Vec<Entry>,
    /// XID errors since the look before.
    pub xids: Vec<Xid>,
    /// XID errors that were thrown away since the look before, because too many waited.
    pub xids_dropped: u64,
    /// Fields whose text was neither a value nor a word for "none": `name=text`, the first few.
    pub unread: Vec<String>,
}

/// Most entries of `unread`: enough to see what is wrong.
const UNREAD_MAX: usize = 8;

impl Reading {
    /// How many devices, slices not counted.
    pub fn devices(&self) -> usize {
        self.entries.iter().filter(|entry| entry.slice.is_none()).count()
    }

    /// Remembers a field whose text could not be read.
    pub fn not_read(&mut self, field: &str, text: &str) {
        if self.unread.len() < UNREAD_MAX {
            let text: String = text.chars().take(40).collect();
            self.unread.push(format!("{field}={text}"));
        }
    }
}

/// A device, or a MIG slice of one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// The device's UUID; where it has none, its place on the PCI bus.
    pub device: String,
    /// The slice within the device; None for the device itself.
    pub slice: Option<String>,
    /// Columns of stream `accelerator`, in base units.
    pub numbers: Vec<(&'static str, f64)>,
    /// Text columns of it.
    pub texts: Vec<(&'static str, String)>,
    /// Who uses it.
    pub processes: Vec<Process>,
}

impl Entry {
    /// Adds a number, if there is one: sums of large ones may be none.
    pub fn number(&mut self, column: &'static str, value: Option<f64>) {
        self.numbers.extend(value.filter(|value| value.is_finite()).map(|value| (column, value)));
    }

    /// Adds a text, if there is one that says something.
    pub fn text(&mut self, column: &'static str, value: Option<impl Into<String>>) {
        let value: Option<String> = value.map(Into::into);
        self.texts.extend(value.filter(|value| !value.is_empty()).map(|value| (column, value)));
    }

    /// The number in a column.
    pub fn get(&self, column: &str) -> Option<f64> {
        self.numbers.iter().find(|(name, _)| *name == column).map(|(_, value)| *value)
    }
}

/// A process that uses a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its number, in the host's own numbering.
    pub pid: u32,
    /// The program it runs, as the source says: never its arguments.
    pub name: Option<String>,
    /// Device memory it holds.
    pub memory_bytes: Option<u64>,
    /// Whether it holds a compute context, not only a graphics one.
    pub compute: bool,
}

/// An XID error, as the driver told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xid {
    /// When it was told.
    pub at: Micros,
    /// UUID of the device.
    pub device: String,
    /// Its code; None where the driver did not know.
    pub code: Option<u64>,
}
