//! One stream's rows of some sites in the order of event time, with rises computed in that order.
//!
//! Rows are read in slices. Before the first slice comes a look back, so that its first rows have rises too: a short one for
//! everything, and further ones for nodes whose counters are still unknown, back to the span for which counters are remembered
//! (`counters.idle`, here in event time). After the last slice comes a look ahead: the row after a restated one had its rise
//! computed without it, so its window is to be restated as well. Rows of one instant count in the order of their numbers.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use airan_model::catalog::Stream;
use airan_model::schema;
use airan_model::time::{MINUTE, Micros};
use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use foldhash::fast::RandomState;

use crate::entities::UNTRACKED;
use crate::restate::history::History;
use crate::rises::Rises;
use crate::settings::CounterSettings;
use crate::split::times;

/// The first look back or ahead: sources report each minute or more often.
const FIRST_LOOK: Micros = 2 * MINUTE;
/// Rows a further look may find before the next one is shorter, and below which it is longer.
const MANY_ROWS: usize = 262_144;
const FEW_ROWS: usize = 32_768;

/// Reads one stream for a restatement.
pub(crate) struct EventOrder<'a> {
    history: &'a History,
    stream: Arc<Stream>,
    sites: Vec<&'a str>,
    /// Columns that are read: those of every row, of the entity, and those the query needs.
    columns: Vec<String>,
    /// The same without what rises have no use for.
    counted: Vec<String>,
    /// Absent where the query needs no rises.
    rises: Option<Rises>,
    /// Where the first slice begins.
    from: Micros,
    idle: Micros,
    /// Nodes for which there is nothing further back.
    known_to_be_new: BTreeSet<Box<str>>,
    /// Rows read, looks back and ahead included.
    pub rows_read: u64,
}

impl<'a> EventOrder<'a> {
    /// For a query that needs the columns `needed` of `stream`, from `from` on.
    pub fn new(
        history: &'a History,
        stream: &Arc<Stream>,
        needed: &BTreeSet<&str>,
        sites: Vec<&'a str>,
        counters: &CounterSettings,
        from: Micros,
    ) -> EventOrder<'a> {
        let remembered = CounterSettings { idle: counters.idle, entities: UNTRACKED as usize - 1 };
        let mut rises = Rises::new(stream, &remembered);
        let is_needed = |name: &str| {
            [schema::INCREASE, schema::INCREASE_SECONDS]
                .iter()
                .any(|suffix| needed.contains(format!("{name}{suffix}").as_str()))
        };
        rises.counters.retain(|counter| is_needed(&counter.name));
        let envelope = [
            schema::TS,
            schema::REGION,
            schema::SITE,
            schema::NODE,
            schema::START_TS,
            schema::SOURCE,
            schema::BATCH,
            schema::SEQ,
        ];
        let entity = stream.entity.iter().map(|column| column.name.as_str());
        let mut counted: BTreeSet<String> = envelope.into_iter().chain(entity).map(str::to_owned).collect();
        for counter in &rises.counters {
            counted.extend(
                ["", schema::INCREASE, schema::INCREASE_SECONDS].map(|suffix| format!("{}{suffix}", counter.name)),
            );
        }
        let columns = counted.iter().cloned().chain(needed.iter().map(|name| (*name).to_owned()));
        EventOrder {
            history,
            stream: Arc::clone(stream),
            sites,
            columns: columns.collect::<BTreeSet<_>>().into_iter().collect(),
            counted: counted.into_iter().collect(),
            rises: Some(rises).filter(|rises| !rises.counters.is_empty()),
            from,
            idle: counters.idle.micros(),
            known_to_be_new: BTreeSet::new(),
            rows_read: 0,
        }
    }

    /// The rows of the next slice, in the stream's columns; columns the query does not need are null. None where there are none.
    pub async fn slice(&mut self, from: Micros, to: Micros) -> Result<Option<RecordBatch>, DataFusionError> {
        if from == self.from && self.rises.is_some() {
            self.look_back(from.saturating_sub(FIRST_LOOK.min(self.idle)), from, None).await?;
        }
        let rows = self.read(&self.columns.clone(), None, (from, to)).await?;
        if rows.num_rows() == 0 {
            return Ok(None);
        }
        self.look_further_back(&rows).await?;
        match &mut self.rises {
            Some(rises) => Ok(Some(with_rises(rises, rows, self.idle)?)),
            None => Ok(Some(rows)),
        }
    }

    /// Looks for the values before the first of each counter in `rows`, until all are found or too far away.
    async fn look_further_back(&mut self, rows: &RecordBatch) -> Result<(), DataFusionError> {
        let limit = self.from.saturating_sub(self.idle);
        let mut to = self.from.saturating_sub(FIRST_LOOK.min(self.idle));
        let mut step = FIRST_LOOK * 8;
        loop {
            let unknown = self.unknown_nodes(rows);
            if unknown.is_empty() {
                return Ok(());
            }
            if to <= limit {
                self.known_to_be_new.extend(unknown);
                return Ok(());
            }
            let from = to.saturating_sub(step).max(limit);
            let found = self.look_back(from, to, Some(&unknown)).await?;
            (to, step) = (from, next_step(step, found));
        }
    }

    async fn look_back(
        &mut self,
        from: Micros,
        to: Micros,
        nodes: Option<&BTreeSet<Box<str>>>,
    ) -> Result<usize, DataFusionError> {
        let before = self.read(&self.counted.clone(), nodes, (from, to)).await?;
        let found = before.num_rows();
        if let Some(rises) = &mut self.rises {
            with_rises(rises, before, self.idle)?;
        }
        Ok(found)
    }

    /// Nodes of rows with a counter of which no value is known, though there may be one.
    fn unknown_nodes(&self, rows: &RecordBatch) -> BTreeSet<Box<str>> {
        let mut unknown = BTreeSet::new();
        let (Some(rises), Some(nodes)) = (&self.rises, nodes_of(rows)) else { return unknown };
        rises.look_up(rows, |row, _, _, last| {
            let node = nodes.value(row);
            if last.is_none() && !unknown.contains(node) && !self.known_to_be_new.contains(node) {
                unknown.insert(node.into());
            }
        });
        unknown
    }

    /// Where the rows lie that follow the last rows of each counter, which were read up to `end`: their times, by site. Looks as
    /// far as counters are remembered, and not beyond `horizon`, where no row can be yet.
    pub async fn followers(
        &mut self,
        end: Micros,
        horizon: Micros,
    ) -> Result<BTreeMap<Box<str>, BTreeSet<Micros>>, DataFusionError> {
        let mut followers: BTreeMap<Box<str>, BTreeSet<Micros>> = BTreeMap::new();
        let Some(rises) = &self.rises else { return Ok(followers) };
        let mut pending: HashSet<(u32, usize), RandomState> = rises.seen_since(self.from).into_iter().collect();
        let limit = end.saturating_add(self.idle).min(horizon);
        let (mut from, mut step) = (end, FIRST_LOOK);
        while !pending.is_empty() && from < limit {
            let to = from.saturating_add(step).min(limit);
            // After the first look only who has fallen silent is left.
            let silent = (from > end).then(|| self.nodes_of(&pending));
            let rows = self.read(&self.counted.clone(), silent.as_ref(), (from, to)).await?;
            let (Some(rises), Some(sites)) = (&self.rises, rows.column_by_name(schema::SITE)) else { break };
            let (sites, ts) = (sites.as_string::<i32>(), times(&rows)?);
            // Sorted by time, so the first row found of a counter is the one that follows.
            let mut found: BTreeMap<(u32, usize), usize> = BTreeMap::new();
            rises.look_up(&rows, |row, entity, counter, _| {
                let Some(entity) = entity else { return };
                if pending.contains(&(entity, counter)) {
                    let first = found.entry((entity, counter)).or_insert(row);
                    *first = row.min(*first);
                }
            });
            for (of, row) in found {
                pending.remove(&of);
                followers.entry(sites.value(row).into()).or_default().insert(ts[row]);
            }
            (from, step) = (to, next_step(step, rows.num_rows()));
        }
        Ok(followers)
    }

    fn nodes_of(&self, entities: &HashSet<(u32, usize), RandomState>) -> BTreeSet<Box<str>> {
        let numbers: HashSet<u32, RandomState> = entities.iter().map(|(entity, _)| *entity).collect();
        let known = self.rises.iter().flat_map(|rises| rises.entities.iter());
        let names = known.filter(|(number, ..)| numbers.contains(number)).map(|(_, values, _)| values.first().copied());
        names.filter_map(|name| name.flatten().map(Box::from)).collect()
    }

    /// Rows in the stream's columns, sorted by time and number.
    async fn read(
        &mut self,
        columns: &[String],
        nodes: Option<&BTreeSet<Box<str>>>,
        span: (Micros, Micros),
    ) -> Result<RecordBatch, DataFusionError> {
        let batches = self.history.rows(&self.stream.name, columns, &self.sites, nodes, span).await?;
        let batches = batches.into_iter().filter(|batch| batch.num_rows() > 0).collect::<Vec<_>>();
        let Some(first) = batches.first() else { return Ok(RecordBatch::new_empty(Arc::clone(self.stream.schema()))) };
        let rows = concat_batches(first.schema_ref(), &batches)?;
        self.rows_read += rows.num_rows() as u64;
        // Sorted before the columns that were not read come in, as nulls: those would be copied, too.
        let rows = sorted(&rows)?;
        Ok(self.stream.conform(&rows).map_err(|error| ArrowError::SchemaError(error.to_string()))?)
    }
}

/// How far the next look goes, after one of `step` that found so many rows.
fn next_step(step: Micros, found: usize) -> Micros {
    match found {
        ..FEW_ROWS => step.saturating_mul(8),
        FEW_ROWS..MANY_ROWS => step,
        _ => (step / 2).max(FIRST_LOOK),
    }
}

fn nodes_of(rows: &RecordBatch) -> Option<&StringArray> {
    rows.column_by_name(schema::NODE)?.as_string_opt::<i32>()
}

/// Sorted by time, then by identity.
fn sorted(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let by = [schema::TS, schema::BATCH, schema::SEQ].iter().filter_map(|name| rows.column_by_name(name));
    let by: Vec<SortColumn> =
        by.map(|values: &ArrayRef| SortColumn { values: Arc::clone(values), options: None }).collect();
    take_record_batch(rows, &lexsort_to_indices(&by, None)?)
}

/// Rows sorted by time with rises computed in that order; each piece spans no more than counters are remembered, so that one
/// that was silent for longer begins anew.
fn with_rises(rises: &mut Rises, rows: RecordBatch, idle: Micros) -> Result<RecordBatch, ArrowError> {
    let rows = rises.without_computed(rows)?;
    let ends = {
        let ts = times(&rows)?;
        let (mut ends, mut first) = (Vec::new(), 0);
        for row in 0..ts.len() {
            if ts[row].saturating_sub(ts[first]) > idle {
                ends.push(row);
                first = row;
            }
        }
        ends.push(ts.len());
        ends
    };
    if let [_] = ends[..] {
        return rises.add_in_event_order(rows);
    }
    let (mut pieces, mut from) = (Vec::with_capacity(ends.len()), 0);
    for end in ends {
        pieces.push(rises.add_in_event_order(rows.slice(from, end - from))?);
        from = end;
    }
    concat_batches(rows.schema_ref(), &pieces)
}
