//! The shard state: what a shard remembers across commits, as tables.
//!
//! Written with every commit and read at every claim; small, because open windows are not in it (they are built again from
//! raw rows). Names of columns and tables are part of the format: they are only ever added (see `sheet`).
//!
//! | table | a row is |
//! | --- | --- |
//! | `shard` | the shard: its log time and sums |
//! | `identities` | one range of one batch's numbers, and the times of the rows at its ends |
//! | `rises/STREAM` | one entity: last time, start and value of each counter |
//! | `clocks` | one node of one stream: newest time, last append time |
//! | `watermarks` | one stream: how far its watermark has come, behind which it does not go back |
//! | `pipelines` | one pipeline: window width, closed through |
//! | `exported` | one Prometheus counter |
//! | `late` | late rows of one stream, node and reason |
//! | `load` | the shard: how busy it was, and its hottest site; for people only |
//! | `dirty` | a stretch of windows to be restated, of one pipeline and site, and why |
//! | `requests` | one request to restate and one pipeline: the next window, whether it is done |

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};
use bytes::Bytes;

use crate::rises_state;
use crate::shard::Shard;
use crate::sheet::{SheetWriter, StateError};
use crate::stage::Stage;

/// Writes the state as it will be once everything pending is stored.
pub(crate) fn write(shard: &Shard) -> Result<Bytes, StateError> {
    let mut state = SheetWriter::new();
    write_shard(shard, &mut state)?;
    write_identities(shard, &mut state)?;
    for (of, stream) in shard.setup.streams.iter().zip(&shard.streams) {
        rises_state::write(&of.stream, &stream.rises, &mut state)?;
    }
    write_clocks(shard, &mut state)?;
    write_pipelines(&shard.stages, &mut state)?;
    write_late(shard, &mut state)?;
    write_load(shard, &mut state)?;
    Ok(state.finish())
}

fn write_shard(shard: &Shard, state: &mut SheetWriter) -> Result<(), StateError> {
    let sums = shard.sums.committed();
    state.table(
        "shard",
        vec![
            ("log_time", ints([shard.log_time])),
            ("appended", counts([sums.appended])),
            ("stored", counts([sums.stored])),
            ("duplicate", counts([sums.duplicate])),
            ("rejected", counts([sums.rejected])),
            ("anonymous", counts([sums.anonymous])),
            ("foreign", counts([sums.foreign])),
            ("out_of_order", counts([sums.out_of_order])),
            ("skipped", counts([sums.skipped])),
        ],
    )
}

fn write_load(shard: &Shard, state: &mut SheetWriter) -> Result<(), StateError> {
    let load = shard.load.summary(&shard.steps);
    let seconds = |value: f64| -> ArrayRef { Arc::new(Float64Array::from_iter_values([value])) };
    let (site, rows) = load.hottest.unzip();
    state.table(
        "load",
        vec![
            ("busy_seconds", seconds(load.busy_seconds)),
            ("wall_seconds", seconds(load.wall_seconds)),
            ("rows", counts([load.rows])),
            ("site", Arc::new(StringArray::from_iter([site]))),
            ("site_rows", counts([rows.unwrap_or(0)])),
        ],
    )
}

fn write_identities(shard: &Shard, state: &mut SheetWriter) -> Result<(), StateError> {
    let of_stream = shard.setup.streams.iter().zip(&shard.streams);
    let known = || {
        of_stream.clone().flat_map(|(of, stream)| stream.identities.iter().map(move |known| (&*of.stream.name, known)))
    };
    let ranges = || known().flat_map(|(stream, known)| known.seen.iter().map(move |range| (stream, known, range)));
    state.table(
        "identities",
        vec![
            ("stream", texts(ranges().map(|(stream, ..)| stream))),
            ("node", texts(ranges().map(|(_, known, _)| &*known.node))),
            ("batch", texts(ranges().map(|(_, known, _)| &*known.batch))),
            ("foreign", Arc::new(ranges().map(|(_, known, _)| Some(known.is_foreign)).collect::<BooleanArray>())),
            ("site", texts(ranges().map(|(_, known, _)| &*known.site))),
            ("last_seen", ints(ranges().map(|(_, known, _)| known.last_seen))),
            ("first", ints(ranges().map(|(.., range)| range.first))),
            ("last", ints(ranges().map(|(.., range)| range.last))),
            ("first_ts", ints(ranges().map(|(.., range)| range.from))),
            ("last_ts", ints(ranges().map(|(.., range)| range.to))),
        ],
    )
}

fn write_clocks(shard: &Shard, state: &mut SheetWriter) -> Result<(), StateError> {
    let clocks = shard.time.rows();
    state.table(
        "clocks",
        vec![
            ("stream", texts(clocks.iter().map(|clock| &*clock.stream))),
            ("node", texts(clocks.iter().map(|clock| &*clock.node))),
            ("newest", ints(clocks.iter().map(|clock| clock.newest))),
            ("seen", ints(clocks.iter().map(|clock| clock.seen))),
        ],
    )?;
    let reached: Vec<_> = shard.time.reached().collect();
    state.table(
        "watermarks",
        vec![
            ("stream", texts(reached.iter().map(|(stream, _)| &***stream))),
            ("reached", ints(reached.iter().map(|(_, reached)| *reached))),
        ],
    )
}

fn write_pipelines(stages: &[Stage], state: &mut SheetWriter) -> Result<(), StateError> {
    state.table(
        "pipelines",
        vec![
            ("pipeline", texts(stages.iter().map(|stage| stage.pipeline.spec.name.as_str()))),
            ("width", ints(stages.iter().map(|stage| stage.pipeline.plan.cut().slide().micros()))),
            ("size", ints(stages.iter().map(|stage| stage.pipeline.plan.cut().size()))),
            ("closed_through", ints(stages.iter().map(Stage::closed_through))),
        ],
    )?;
    let mut rows: Vec<(&str, &str, Option<String>, f64)> = Vec::new();
    for stage in stages {
        let spec = &stage.pipeline.spec;
        let name_of = |metric: usize| spec.metrics[metric].name.as_str();
        for ((metric, values), value) in &stage.exported.series {
            let labels =
                spec.metrics[*metric].labels.iter().map(String::as_str).zip(values.iter().map(|value| &**value));
            let labels = serde_json::Value::from_iter(labels).to_string();
            rows.push((&spec.name, name_of(*metric), Some(labels), *value));
        }
        rows.extend(
            stage.exported.overflow.iter().map(|(metric, value)| (&*spec.name, name_of(*metric), None, *value)),
        );
    }
    state.table(
        "exported",
        vec![
            ("pipeline", texts(rows.iter().map(|row| row.0))),
            ("metric", texts(rows.iter().map(|row| row.1))),
            ("labels", Arc::new(rows.iter().map(|row| row.2.as_deref()).collect::<StringArray>())),
            ("value", Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.3)))),
        ],
    )
}

fn write_late(shard: &Shard, state: &mut SheetWriter) -> Result<(), StateError> {
    let late: Vec<_> = shard.lates.rows().collect();
    state.table(
        "late",
        vec![
            ("stream", texts(late.iter().map(|late| &**late.0))),
            ("node", texts(late.iter().map(|late| late.1))),
            ("reason", texts(late.iter().map(|late| late.2.as_str()))),
            ("rows", counts(late.iter().map(|late| late.3))),
        ],
    )?;
    let marks: Vec<_> = shard.marks.iter().collect();
    let dirty = || marks.iter().flat_map(|(key, times, spans)| spans.iter().map(move |span| (*key, *times, span)));
    state.table(
        "dirty",
        vec![
            ("pipeline", texts(dirty().map(|(key, ..)| &*key.pipeline))),
            ("site", texts(dirty().map(|(key, ..)| &*key.site))),
            ("why", texts(dirty().map(|(key, ..)| key.why.as_str()))),
            ("since", ints(dirty().map(|(_, (since, _), _)| since))),
            ("touched", ints(dirty().map(|(_, (_, touched), _)| touched))),
            ("start", ints(dirty().map(|(.., span)| span.0))),
            ("end", ints(dirty().map(|(.., span)| span.1))),
        ],
    )?;
    let requests = || shard.requests.iter();
    state.table(
        "requests",
        vec![
            ("request", texts(requests().map(|(part, _)| &*part.request))),
            ("pipeline", texts(requests().map(|(part, _)| &*part.pipeline))),
            ("next", ints(requests().map(|(_, reached)| reached.next))),
            ("done", Arc::new(requests().map(|(_, reached)| Some(reached.is_done)).collect::<BooleanArray>())),
        ],
    )
}

pub(crate) fn ints(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn counts(values: impl IntoIterator<Item = u64>) -> ArrayRef {
    ints(values.into_iter().map(|count| i64::try_from(count).unwrap_or(i64::MAX)))
}

pub(crate) fn texts<'a>(values: impl IntoIterator<Item = &'a str>) -> ArrayRef {
    Arc::new(values.into_iter().map(Some).collect::<StringArray>())
}
