use super::*;
use arrow::array::{
    ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int64Array, ListArray, MapBuilder, StringArray,
    StringBuilder, StructArray, TimestampMicrosecondArray, UInt64Array, new_null_array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Float64Type, Int8Type, Int64Type};
use proptest::prelude::*;

use crate::schema;

const LIMITS: IpcLimits = IpcLimits { bytes: 1 << 20, rows: 100_000, columns: 200, depth: 8 };

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<Field> = columns.iter().map(|(n, a)| Field::new(*n, a.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, a)| a).collect()).unwrap()
}

/// One column of every type a stream has, `rows` long, with nulls in places.
fn every_type(rows: usize) -> RecordBatch {
    let some = |i: usize| !i.is_multiple_of(3);
    let histogram = StructArray::new(
        schema::histogram_fields(),
        vec![
            Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(
                (0..rows).map(|i| some(i).then(|| vec![Some(0.5), Some(i as f64)])),
            )),
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(
                (0..rows).map(|i| some(i).then(|| vec![Some(1), Some(2), Some(i as i64)])),
            )),
            Arc::new((0..rows).map(|i| some(i).then_some(i as f64)).collect::<Float64Array>()),
            Arc::new((0..rows).map(|i| some(i).then_some(i as i64)).collect::<Int64Array>()),
        ],
        Some(NullBuffer::from_iter((0..rows).map(some))),
    );
    let names = arrow::array::MapFieldNames { entry: "entries".into(), key: "keys".into(), value: "values".into() };
    let mut attributes = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    for i in 0..rows {
        attributes.keys().append_value("label");
        attributes.values().append_value(format!("value {i}"));
        attributes.append(true).unwrap();
    }
    batch(vec![
        ("ts", Arc::new(TimestampMicrosecondArray::from_iter_values(0..rows as i64).with_timezone("UTC"))),
        ("node", Arc::new((0..rows).map(|i| some(i).then(|| format!("node-{i}"))).collect::<StringArray>())),
        ("value", Arc::new((0..rows).map(|i| some(i).then_some(i as f64 * 0.1)).collect::<Float64Array>())),
        ("seq", Arc::new(Int64Array::from_iter_values(0..rows as i64))),
        ("flag", Arc::new(BooleanArray::from_iter((0..rows).map(|i| Some(some(i)))))),
        ("h", Arc::new(histogram)),
        ("attributes", Arc::new(attributes.finish())),
    ])
}

fn stream(batches: &[RecordBatch], compression: Option<CompressionType>) -> Bytes {
    let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batches[0].schema(), options).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.finish().unwrap();
    Bytes::from(writer.into_inner().unwrap())
}

#[test]
fn rows_of_every_type_come_back_as_they_were() {
    for rows in [2, 3, 1000] {
        let sent = every_type(rows);
        assert_eq!(sent.column(6).data_type(), &schema::attributes_type());
        assert_eq!(sent.column(5).data_type(), &schema::histogram_type());
        let received = decode(&encode(&sent).unwrap(), &IpcLimits { bytes: 8 << 20, ..LIMITS }).unwrap();
        assert_eq!(received.columns(), sent.columns(), "{rows} rows");
    }
}

/// Scenario: columns without a value, a slice, metadata, no column at all.
#[test]
fn columns_without_a_value_and_metadata_are_left_out() {
    let sent = batch(vec![
        ("a", new_null_array(&DataType::Float64, 3)),
        ("b", Arc::new(Int64Array::from(vec![None, Some(1), None])) as ArrayRef),
        ("c", new_null_array(&schema::histogram_type(), 3)),
    ]);
    let received = decode(&encode(&sent).unwrap(), &LIMITS).unwrap();
    assert_eq!((received.num_rows(), received.num_columns(), received.schema().field(0).name().as_str()), (3, 1, "b"));
    let slice = sent.slice(2, 1);
    let received = decode(&encode(&slice).unwrap(), &LIMITS).unwrap();
    assert_eq!((received.num_rows(), received.num_columns()), (1, 0));
    let empty = decode(&encode(&sent.slice(0, 0)).unwrap(), &LIMITS).unwrap();
    assert_eq!(empty.num_rows(), 0);

    let metadata = [("unit".to_owned(), "watts".to_owned())].into_iter().collect();
    let field = Field::new("b", DataType::Int64, true).with_metadata(metadata);
    let described =
        RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![Arc::new(Int64Array::from(vec![1]))]).unwrap();
    assert!(decode(&encode(&described).unwrap(), &LIMITS).unwrap().schema().field(0).metadata().is_empty());
}

#[test]
fn streams_of_others_are_read_plain_zstd_and_in_several_batches() {
    for compression in [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)] {
        let received = decode(&stream(&[every_type(10), every_type(5)], compression), &LIMITS).unwrap();
        assert_eq!(received.num_rows(), 15);
        assert_eq!(received.slice(10, 5).columns(), every_type(5).columns());
    }
}

#[test]
fn types_no_stream_has_are_refused_with_their_column() {
    let keys: DictionaryArray<Int8Type> = vec!["a", "b", "a"].into_iter().collect();
    let error = decode(&stream(&[batch(vec![("d", Arc::new(keys))])], None), &LIMITS).unwrap_err();
    assert!(matches!(&error, DecodeError::Unsupported(reason) if reason.contains("dictionary")), "{error}");
    let unsigned: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX]));
    let error = decode(&stream(&[batch(vec![("bytes", unsigned)])], None), &LIMITS).unwrap_err();
    assert!(matches!(&error, DecodeError::Unsupported(reason) if reason.contains("`bytes`")), "{error}");
}

/// Scenario: a sender adds a second `site` to its rows, at the end; and a histogram with two fields of one name.
/// Guarantees: refused by name, so that no reader can take the one for the other.
#[test]
fn two_columns_of_one_name_are_refused() {
    let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let twice = batch(vec![("site", text("own")), ("node", text("a")), ("site", text("another's"))]);
    let occurs_twice = |name: &str| Err(DecodeError::Malformed(format!("column `{name}` occurs twice")));
    assert_eq!(decode(&stream(&[twice], None), &LIMITS), occurs_twice("site"));
    let field = Arc::new(Field::new("sum", DataType::Utf8, true));
    let inner: ArrayRef = Arc::new(StructArray::from(vec![(Arc::clone(&field), text("1")), (field, text("2"))]));
    assert_eq!(decode(&stream(&[batch(vec![("h", inner)])], None), &LIMITS), occurs_twice("sum"));
    let differ = batch(vec![("site", text("a")), ("Site", text("b"))]);
    assert_eq!(decode(&stream(&[differ], None), &LIMITS).unwrap().num_columns(), 2);
}

#[test]
fn every_limit_is_enforced() {
    let body = stream(&[every_type(100), every_type(100)], Some(CompressionType::LZ4_FRAME));
    decode(&body, &LIMITS).unwrap();
    for (limits, reason) in [
        (IpcLimits { rows: 199, ..LIMITS }, "more than 199 rows"),
        (IpcLimits { bytes: 10_000, ..LIMITS }, "more than 10000 bytes"),
        (IpcLimits { columns: 5, ..LIMITS }, "too many columns"),
        (IpcLimits { depth: 2, ..LIMITS }, "types nested too deep"),
    ] {
        assert_eq!(decode(&body, &limits), Err(DecodeError::TooLarge(reason.into())));
    }
}

/// Scenario: 64 MiB of zeros, which LZ4 packs 250 times and zstd more, with an honest claim and with a forged one of 8 bytes.
/// Guarantees: refused by the budget or as a lie, before anything is unpacked.
#[test]
fn a_bomb_is_refused_before_it_is_unpacked() {
    let zeros: ArrayRef = Arc::new(Int64Array::from(vec![0i64; 8 << 20]));
    let limits = IpcLimits { rows: 100 << 20, ..LIMITS };
    for compression in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
        let body = stream(&[batch(vec![("zeros", Arc::clone(&zeros))])], Some(compression));
        assert_eq!(decode(&body, &limits), Err(DecodeError::TooLarge("more than 1048576 bytes".into())));
        let magic = if compression == CompressionType::ZSTD { 0xfd2f_b528u32 } else { 0x184d_2204 }.to_le_bytes();
        let at = body.windows(4).position(|window| window == magic).unwrap() - 8;
        assert_eq!(body[at..at + 8], (64i64 << 20).to_le_bytes());
        let mut forged = body.to_vec();
        forged[at..at + 8].copy_from_slice(&8i64.to_le_bytes());
        assert!(matches!(decode(&Bytes::from(forged), &limits), Err(DecodeError::Malformed(_))), "{compression:?}");
    }
}

#[test]
fn a_stream_cut_anywhere_is_malformed() {
    let body = encode(&every_type(20)).unwrap();
    for end in 0..body.len() {
        let cut = decode(&body.slice(..end), &LIMITS);
        assert!(matches!(cut, Err(DecodeError::Malformed(_))), "cut at {end}: {cut:?}");
    }
    let longer = [&body[..], &[0u8]].concat();
    assert_eq!(decode(&Bytes::from(longer), &LIMITS), Err(DecodeError::Malformed("bytes after its end".into())));
}

/// Scenario: each byte of a stream set to each of a few nasty values, for all three compressions.
/// Guarantees: an answer or an error, never a panic; what is answered can be printed, so its offsets and texts are sound.
#[test]
fn a_flipped_byte_never_panics() {
    for compression in [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)] {
        let body = stream(&[every_type(4)], compression).to_vec();
        for at in 0..body.len() {
            for value in [0x00, 0x01, 0x7f, 0x80, 0xff, body[at] ^ 0x10] {
                let mut flipped = body.clone();
                flipped[at] = value;
                if let Ok(rows) = read_stream(&Bytes::from(flipped), &LIMITS) {
                    assert!(rows.num_rows() <= LIMITS.rows);
                    for column in rows.columns() {
                        let options = arrow::util::display::FormatOptions::default();
                        let Ok(print) = arrow::util::display::ArrayFormatter::try_new(column.as_ref(), &options) else {
                            continue; // a time zone that is none
                        };
                        for row in 0..rows.num_rows().min(10) {
                            let _ = print.value(row).try_to_string();
                        }
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = read_stream(&Bytes::from(bytes), &LIMITS);
    }

    /// Several bytes of a sound stream changed at once.
    #[test]
    fn damaged_streams_never_panic(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), packed in any::<bool>()) {
        let mut body = stream(&[every_type(7)], packed.then_some(CompressionType::LZ4_FRAME)).to_vec();
        for (at, value) in changes {
            let at = at.index(body.len());
            body[at] = value;
        }
        let _ = read_stream(&Bytes::from(body), &LIMITS);
    }

    /// What is written comes back, whatever the numbers, texts and nulls.
    #[test]
    fn round_trip(values in proptest::collection::vec((any::<Option<i64>>(), proptest::option::of(".{0,12}")), 1..200)) {
        let numbers: ArrayRef = Arc::new(values.iter().map(|(n, _)| *n).collect::<Int64Array>());
        let texts: ArrayRef = Arc::new(values.iter().map(|(_, t)| t.clone()).collect::<StringArray>());
        let received = decode(&encode(&batch(vec![("n", Arc::clone(&numbers)), ("t", Arc::clone(&texts))])).unwrap(), &LIMITS).unwrap();
        for (name, sent) in [("n", numbers), ("t", texts)] {
            match received.column_by_name(name) {
                Some(column) => prop_assert_eq!(column, &sent),
                None => prop_assert_eq!(sent.null_count(), sent.len()),
            }
        }
    }
}
