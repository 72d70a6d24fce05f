//! Where each column of a stream stands: looked up once a request, never once a row.
//!
//! Between decoding and the bus, rows are kept as loose columns with the place each has in its stream, so that rows of many
//! requests with different column sets become one message without building a schema for each.

use std::collections::HashMap;
use std::sync::Arc;

use airan_model::catalog::{Catalog, Stream};
use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{FieldRef, Schema};
use arrow::record_batch::RecordBatch;
use foldhash::fast::RandomState;

/// One stream's columns and their places.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The stream.
    pub stream: Arc<Stream>,
    /// Number of the stream among all, from 0.
    pub number: usize,
    // The stream's fields without their descriptions: these stay in the catalog, off the bus.
    fields: Vec<FieldRef>,
}

/// Some rows of one stream, as loose columns of equal length. Columns without any value are left out.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    /// Number of rows.
    pub rows: usize,
    /// The columns, each with its index in the stream's schema.
    pub columns: Vec<(usize, ArrayRef)>,
}

/// Why rows cannot be taken apart.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum ColumnError {
    /// A column of a known name that has another type.
    #[error("column `{column}` of stream `{stream}` has another type than the catalog says")]
    Type { stream: String, column: String },
    /// A column that the catalog does not know: decoders have made attributes of those.
    #[error("stream `{stream}` has no column `{column}`")]
    Unknown { stream: String, column: String },
    /// Two columns of one name: what the gateway sets in the first would not hold for the second.
    #[error("column `{0}` occurs twice")]
    Twice(String),
}

impl Layout {
    /// The layouts of all streams, by stream name.
    pub fn of_catalog(catalog: &Catalog) -> HashMap<Arc<str>, Arc<Layout>, RandomState> {
        let of = |(number, stream): (usize, &Arc<Stream>)| {
            let bare = |field: &FieldRef| Arc::new(field.as_ref().clone().with_metadata(HashMap::new()));
            let fields = stream.schema().fields().iter().map(bare).collect();
            let layout = Layout { stream: Arc::clone(stream), number, fields };
            (Arc::clone(&stream.name), Arc::new(layout))
        };
        catalog.streams().enumerate().map(of).collect()
    }

    /// The place of a column of the stream's schema.
    pub fn place(&self, column: &str) -> Option<usize> {
        self.stream.place_of(column)
    }

    /// Takes rows apart. Columns that are null throughout are dropped.
    pub fn apart(&self, rows: &RecordBatch) -> Result<Columns, ColumnError> {
        let mut columns = Vec::with_capacity(rows.num_columns() + 7); // the envelope's columns follow
        let mut names: Vec<&str> = rows.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
        names.sort_unstable();
        if let Some([name, _]) = names.array_windows::<2>().find(|[name, next]| name == next) {
            return Err(ColumnError::Twice((*name).to_owned()));
        }
        for (field, array) in rows.schema_ref().fields().iter().zip(rows.columns()) {
            if array.null_count() == array.len() {
                continue;
            }
            let (stream, column) = (|| self.stream.name.to_string(), || field.name().clone());
            let place = match self.place(field.name()) {
                Some(place) if self.fields[place].data_type() == array.data_type() => place,
                Some(_) => return Err(ColumnError::Type { stream: stream(), column: column() }),
                None => return Err(ColumnError::Unknown { stream: stream(), column: column() }),
            };
            columns.push((place, Arc::clone(array)));
        }
        Ok(Columns { rows: rows.num_rows(), columns })
    }

    /// One table from parts with different column sets, in catalog order.
    pub fn join(&self, parts: &[&Columns]) -> Result<RecordBatch, arrow::error::ArrowError> {
        let mut cells: Vec<Option<&ArrayRef>> = vec![None; parts.len() * self.fields.len()];
        for (row, part) in parts.iter().enumerate() {
            for (place, array) in &part.columns {
                cells[place * parts.len() + row] = Some(array);
            }
        }
        let mut fields = Vec::new();
        let mut columns = Vec::new();
        for (field, cells) in self.fields.iter().zip(cells.chunks_exact(parts.len().max(1))) {
            if cells.iter().all(Option::is_none) {
                continue;
            }
            fields.push(Arc::clone(field));
            columns.push(one_column(field, cells, parts)?);
        }
        let rows = parts.iter().map(|part| part.rows).sum();
        let schema = Arc::new(Schema::new(fields));
        let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(schema, columns, &options)
    }
}

/// The cells of one column, one below the other; a part without the column counts as nulls.
fn one_column(
    field: &FieldRef,
    cells: &[Option<&ArrayRef>],
    parts: &[&Columns],
) -> Result<ArrayRef, arrow::error::ArrowError> {
    if let [Some(only)] = cells {
        return Ok(Arc::clone(only));
    }
    let nulls: Vec<Option<ArrayRef>> = cells
        .iter()
        .zip(parts)
        .map(|(cell, part)| cell.is_none().then(|| arrow::array::new_null_array(field.data_type(), part.rows)))
        .collect();
    let arrays: Vec<&dyn Array> = cells
        .iter()
        .zip(&nulls)
        .filter_map(|(cell, null)| cell.or(null.as_ref()).map(|array| array.as_ref() as &dyn Array))
        .collect();
    arrow::compute::concat(&arrays)
}

impl Columns {
    /// The column at a place of the stream's schema.
    pub fn at(&self, place: Option<usize>) -> Option<&ArrayRef> {
        let wanted = place?;
        self.columns.iter().find_map(|(place, array)| (*place == wanted).then_some(array))
    }

    /// Sets or adds a column of the stream's schema.
    pub fn set(&mut self, place: Option<usize>, array: ArrayRef) {
        let Some(wanted) = place else { return };
        match self.columns.iter_mut().find(|(place, _)| *place == wanted) {
            Some((_, have)) => *have = array,
            None => self.columns.push((wanted, array)),
        }
    }

    /// Rows `offset..offset + rows`, without copying.
    pub fn slice(&self, offset: usize, rows: usize) -> Columns {
        let columns = self.columns.iter().map(|(place, array)| (*place, array.slice(offset, rows))).collect();
        Columns { rows, columns }
    }

    /// The rows with these indices.
    pub fn take(&self, indices: &arrow::array::UInt32Array) -> Result<Columns, arrow::error::ArrowError> {
        let columns = self
            .columns
            .iter()
            .map(|(place, array)| Ok((*place, arrow::compute::take(array.as_ref(), indices, None)?)))
            .collect::<Result<_, arrow::error::ArrowError>>()?;
        Ok(Columns { rows: indices.len(), columns })
    }

    /// Bytes of these rows alone, also where the arrays are slices of larger ones. An estimate of a message's size before
    /// compression.
    pub fn bytes(&self) -> usize {
        self.columns.iter().map(|(_, array)| array.to_data().get_slice_memory_size().unwrap_or(0)).sum()
    }
}
