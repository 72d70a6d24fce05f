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

/// Where a column stands in its stream's table.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// At this index of the stream's schema.
    Known(usize),
    /// Unknown to the catalog: after the known ones, by name.
    Extra(FieldRef),
}

/// Some rows of one stream, as loose columns of equal length. Columns without any value are left out.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    /// Number of rows.
    pub rows: usize,
    /// The columns, each with its place.
    pub columns: Vec<(Place, ArrayRef)>,
}

/// Why rows cannot be taken apart.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum ColumnError {
    /// A column of a known name that has another type.
    #[error("column `{column}` of stream `{stream}` has another type than the catalog says")]
    Type { stream: String, column: String },
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
            let place = match self.place(field.name()) {
                Some(place) if self.fields[place].data_type() == array.data_type() => Place::Known(place),
                Some(_) => return Err(self.mismatch(field.name())),
                None => Place::Extra(Arc::clone(field)),
            };
            columns.push((place, Arc::clone(array)));
        }
        Ok(Columns { rows: rows.num_rows(), columns })
    }

    /// A column's error, when it is not of the type its name demands.
    pub fn mismatch(&self, column: &str) -> ColumnError {
        ColumnError::Type { stream: self.stream.name.to_string(), column: column.to_owned() }
    }

    /// One table from parts with different column sets, in catalog order with unknown columns behind, by name. `extras` are
    /// the unknown ones of all parts.
    pub fn join(&self, parts: &[&Columns], extras: &[FieldRef]) -> Result<RecordBatch, arrow::error::ArrowError> {
        let width = self.fields.len();
        let mut cells: Vec<Option<&ArrayRef>> = vec![None; parts.len() * (width + extras.len())];
        for (row, part) in parts.iter().enumerate() {
            for (place, array) in &part.columns {
                let column = match place {
                    Place::Known(place) => *place,
                    Place::Extra(field) => match extras.binary_search_by(|have| have.name().cmp(field.name())) {
                        Ok(found) => width + found,
                        Err(_) => continue,
                    },
                };
                cells[column * parts.len() + row] = Some(array);
            }
        }
        let mut fields = Vec::new();
        let mut columns = Vec::new();
        for (column, cells) in cells.chunks_exact(parts.len().max(1)).enumerate() {
            if cells.iter().all(Option::is_none) {
                continue;
            }
            let field = if column < width { &self.fields[column] } else { &extras[column - width] };
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
        self.columns.iter().find_map(|(place, array)| match place {
            Place::Known(place) if *place == wanted => Some(array),
            _ => None,
        })
    }

    /// Sets or adds a column of the stream's schema.
    pub fn set(&mut self, place: Option<usize>, array: ArrayRef) {
        let Some(wanted) = place else { return };
        let slot = self.columns.iter_mut().find(|(place, _)| matches!(place, Place::Known(place) if *place == wanted));
        match slot {
            Some((_, have)) => *have = array,
            None => self.columns.push((Place::Known(wanted), array)),
        }
    }

    /// Rows `offset..offset + rows`, without copying.
    pub fn slice(&self, offset: usize, rows: usize) -> Columns {
        let columns = self.columns.iter().map(|(place, array)| (place.clone(), array.slice(offset, rows))).collect();
        Columns { rows, columns }
    }

    /// The rows with these indices.
    pub fn take(&self, indices: &arrow::array::UInt32Array) -> Result<Columns, arrow::error::ArrowError> {
        let columns = self
            .columns
            .iter()
            .map(|(place, array)| Ok((place.clone(), arrow::compute::take(array.as_ref(), indices, None)?)))
            .collect::<Result<_, arrow::error::ArrowError>>()?;
        Ok(Columns { rows: indices.len(), columns })
    }

    /// Bytes of these rows alone, also where the arrays are slices of larger ones. An estimate of a message's size before
    /// compression.
    pub fn bytes(&self) -> usize {
        self.columns.iter().map(|(_, array)| array.to_data().get_slice_memory_size().unwrap_or(0)).sum()
    }
}
