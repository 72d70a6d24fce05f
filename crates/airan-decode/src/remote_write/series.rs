//! One series of a remote write message: its labels, its type, its samples.
//!
//! Fields may come in any order, so the head (labels, metadata) is read before the samples.

use airan_model::limits::Limits;

use super::{RemoteWrite, kind_of};
use crate::classic::Lines;
use crate::labels::{Label, LabelBuffer};
use crate::rows::MetricKind;
use crate::wire::{Fault, Message, Value};

/// The label that holds the metric's name.
const NAME: &str = "__name__";

/// What the samples of a series share; its labels are in the buffer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Head<'b> {
    pub name: &'b str,
    pub kind: MetricKind,
    /// Milliseconds since 1970; 0 where it is not said.
    pub start: i64,
    pub fault: Option<&'static str>,
}

/// A float sample.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    pub value: f64,
    /// Milliseconds since 1970.
    pub time: i64,
    /// Milliseconds since 1970; 0 where it is not said.
    pub start: i64,
}

/// What it takes to read a series, also again.
pub(super) struct Reader<'b> {
    pub version: RemoteWrite,
    pub symbols: Vec<&'b str>,
    pub limits: &'b Limits,
    /// Series that are parts of histograms, to be read again when all of a histogram's are there.
    pub kept: Vec<Message<'b>>,
}

impl<'b> Reader<'b> {
    /// Field number of native histograms in a series.
    pub(super) fn histograms_field(&self) -> u32 {
        match self.version {
            RemoteWrite::V1 => 4,
            RemoteWrite::V2 => 3,
        }
    }

    /// Field number of exemplars in a series.
    pub(super) fn exemplars_field(&self) -> u32 {
        match self.version {
            RemoteWrite::V1 => 3,
            RemoteWrite::V2 => 4,
        }
    }

    /// Labels go to the buffer, without the name.
    pub(super) fn head(&self, message: Message<'b>, labels: &mut LabelBuffer<'b>) -> Result<Head<'b>, Fault> {
        let mut head = Head::default();
        labels.clear();
        let mut half = None;
        let mut label = |head: &mut Head<'b>, name: &'b str, value: &'b str| match name {
            NAME if head.name.is_empty() => head.name = value,
            NAME => head.fault = Some("a series with two names"),
            "" => head.fault = Some("a label without a name"),
            _ => labels.push(name.into(), value.into()),
        };
        message.each::<Fault>(|field| {
            match (self.version, field) {
                (RemoteWrite::V1, (1, Value::Bytes(pair))) => {
                    let (name, value) = self::pair(pair)?;
                    label(&mut head, name, value);
                }
                (RemoteWrite::V2, (1, refs)) => {
                    let mut take = |number: u64| {
                        let symbol = usize::try_from(number).ok().and_then(|at| self.symbols.get(at)).copied();
                        if symbol.is_none() {
                            head.fault = Some("a reference to no symbol");
                        }
                        let symbol = symbol.unwrap_or_default();
                        match half.take() {
                            None => half = Some(symbol),
                            Some(name) => label(&mut head, name, symbol),
                        }
                        Ok::<(), Fault>(())
                    };
                    match refs {
                        Value::Varint(number) => take(number)?,
                        Value::Bytes(packed) => packed.packed_varints(take)?,
                        _ => {}
                    }
                }
                (RemoteWrite::V2, (5, Value::Bytes(metadata))) => metadata.each::<Fault>(|field| {
                    if let (1, Value::Varint(number)) = field {
                        head.kind = kind_of(number);
                    }
                    Ok(())
                })?,
                // `created_timestamp` of release candidates of 2.0; the final one has it with each sample.
                (RemoteWrite::V2, (6, Value::Varint(millis))) => head.start = millis as i64,
                _ => {}
            }
            Ok(())
        })?;
        if half.is_some() {
            head.fault = Some("a label without a value");
        }
        Ok(head)
    }

    /// A series that was kept.
    pub(super) fn kept(&self, at: usize, labels: &mut LabelBuffer<'b>) -> Result<Head<'b>, Fault> {
        self.kept.get(at).map_or(Ok(Head::default()), |series| self.head(*series, labels))
    }
}

impl<'b> Lines<'b> for Reader<'b> {
    fn labels_at(&self, at: usize) -> Option<Vec<Label<'b>>> {
        let mut labels = LabelBuffer::new(self.limits, 0);
        self.kept(at, &mut labels).ok()?;
        labels.take().ok()
    }
}

/// Name and value of a label of remote write 1.0.
fn pair<'b>(pair: Message<'b>) -> Result<(&'b str, &'b str), Fault> {
    if let Some((name, value)) = pair.two_texts() {
        return Ok((name.text()?, value.text()?));
    }
    let (mut name, mut value) = ("", "");
    pair.each::<Fault>(|field| {
        match field {
            (1, Value::Bytes(text)) => name = text.text()?,
            (2, Value::Bytes(text)) => value = text.text()?,
            _ => {}
        }
        Ok(())
    })?;
    Ok((name, value))
}

/// Reads a float sample.
pub(super) fn sample(message: Message<'_>) -> Result<Sample, Fault> {
    let mut sample = Sample::default();
    message.each::<Fault>(|field| {
        match field {
            (1, Value::Fixed64(bits)) => sample.value = f64::from_bits(bits),
            (2, Value::Varint(millis)) => sample.time = millis as i64,
            (3, Value::Varint(millis)) => sample.start = millis as i64,
            _ => {}
        }
        Ok(())
    })?;
    Ok(sample)
}
