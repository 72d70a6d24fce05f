//! What an erasure must know of counters: by which columns their series are told apart, so that the rows are found whose rises were
//! computed from erased ones.

use airan_lake::{Series, SeriesOf};
use airan_model::catalog::{Catalog, Kind};
use airan_model::schema;

/// By stream, the counters and histograms of the catalog; without the streams that have none.
pub fn series(catalog: &Catalog) -> Series {
    let counts = |kind: &Kind| matches!(kind, Kind::Counter | Kind::Histogram);
    let of_stream = catalog.streams().map(|stream| {
        let entity = stream.entity.iter().map(|column| column.name.clone());
        let counters = stream.columns.iter().filter(|column| counts(&column.kind)).map(|column| column.name.clone());
        let named_by = [schema::NODE.to_owned()].into_iter().chain(entity).collect();
        (stream.name.to_string(), SeriesOf { named_by, counters: counters.collect() })
    });
    of_stream.filter(|(_, series)| !series.counters.is_empty()).collect()
}
