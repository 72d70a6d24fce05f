use arrow::array::{Float64Array, Int64Array, RecordBatch};
use serde_json::json;

use super::*;
use crate::rows::columns::Attributes;
use crate::testing::{NOW, check, context, row, rows};

fn table(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let columns = columns.into_iter().map(|(name, array)| (name, array, true));
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(values.iter().copied().collect::<StringArray>())
}

fn floats(values: &[f64]) -> ArrayRef {
    Arc::new(Float64Array::from(values.to_vec()))
}

fn attributes(rows: &[&[(&str, &str)]]) -> ArrayRef {
    let mut built = Attributes::default();
    for row in rows {
        row.iter().for_each(|(key, value)| built.entry(key, Some(value)));
        built.end_row();
    }
    built.finish_some().unwrap().unwrap()
}

fn read(rows: &RecordBatch, stream: &str) -> Result<Decoded, DecodeError> {
    decode(&ipc::encode(rows).unwrap(), stream, &context())
}

#[test]
fn rows_come_through_with_identity_and_unknown_columns() {
    let sent = table(vec![
        ("ts", Arc::new(TimestampMicrosecondArray::from(vec![5]).with_timezone("UTC"))),
        ("node", texts(&[Some("b1")])),
        ("utilization", floats(&[0.5])),
        ("batch", texts(&[Some("0000000000000000000000000000000a")])),
        ("seq", Arc::new(Int64Array::from(vec![7]))),
        ("of_a_newer_agent", floats(&[1.0])),
    ]);
    let decoded = read(&sent, "accelerator").unwrap();
    let known = sent.num_columns() - 1;
    assert_eq!(
        decoded.rows[0].rows.project(&(0..known).collect::<Vec<_>>()).unwrap(),
        sent.project(&(0..known).collect::<Vec<_>>()).unwrap()
    );
    assert_eq!(row(&decoded, "accelerator")["attributes"], json!({"of_a_newer_agent": "1.0"}));
    assert_eq!(decoded.tally, Tally { samples: 1, columns: 1, ..Tally::default() });
    assert_eq!(read(&table(vec![("value", floats(&[1.0, 2.0]))]), "sample").unwrap().tally.sample_rows, 2);
    assert!(read(&table(vec![("value", floats(&[]))]), "sample").unwrap().rows.is_empty());
}

/// Scenario: columns that no table could take: the partition's name, a type that changes, nested ones; many; much text.
/// Guarantees: they are attributes, or the body is refused; no column but the catalog's comes out.
#[test]
fn no_column_of_a_stranger_becomes_one_of_the_table() {
    let body = |name: &str, array: ArrayRef| table(vec![("load1", floats(&[1.0])), (name, array)]);
    let when: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![5]));
    let nested: ArrayRef = Arc::new(arrow::array::StructArray::from(vec![(
        Arc::new(Field::new("at", when.data_type().clone(), true)),
        Arc::clone(&when),
    )]));
    let none: ArrayRef = Arc::new(arrow::array::StructArray::new_empty_fields(1, None));
    let cases: [(&str, ArrayRef, serde_json::Value); 6] = [
        ("date", texts(&[Some("2026-01-01")]), json!("2026-01-01")),
        ("x", Arc::new(Int64Array::from(vec![1])), json!("1")),
        ("x", floats(&[1.5]), json!("1.5")),
        ("when", when, json!("1970-01-01T00:00:00.000005")),
        ("nested", nested, json!("{at: 1970-01-01T00:00:00.000005}")),
        ("none", none, json!("{}")),
    ];
    for (name, array, wanted) in cases {
        let decoded = read(&body(name, array), "host").unwrap();
        check(&decoded);
        assert_eq!(row(&decoded, "host")["attributes"][name], wanted, "{name}");
    }
    let names: Vec<String> = (0..=ATTRIBUTES_MAX).map(|at| format!("x{at}")).collect();
    let many = |count: usize| table(names[..count].iter().map(|name| (name.as_str(), floats(&[1.0]))).collect());
    assert!(read(&many(ATTRIBUTES_MAX), "host").is_ok());
    assert_eq!(read(&many(ATTRIBUTES_MAX + 1), "host").unwrap_err().reason, Reason::TooManyLabels);
}

/// Scenario: names, labels, attributes and unknown columns of exactly the longest text, and of a byte more.
/// Guarantees: the limit of labels holds here as at the other doors.
#[test]
fn long_texts_are_refused() {
    let longest = context().limits.label_bytes;
    let bodies = |length: usize| {
        let text = "y".repeat(length);
        let one = || texts(&[Some(&text)]);
        [
            table(vec![("node", one()), ("load1", floats(&[1.0]))]),
            table(vec![("arch", one())]),
            table(vec![("other", one())]),
            table(vec![("load1", floats(&[1.0])), ("attributes", attributes(&[&[("a", &text)]]))]),
            table(vec![("load1", floats(&[1.0])), ("attributes", attributes(&[&[(&text, "a")]]))]),
        ]
    };
    for body in bodies(longest) {
        read(&body, "host").unwrap();
    }
    for body in bodies(longest + 1) {
        assert_eq!(read(&body, "host").unwrap_err().reason, Reason::LabelTooLong);
    }
}

#[test]
fn missing_times_and_nodes_are_filled() {
    let sent = table(vec![
        ("ts", Arc::new(TimestampMicrosecondArray::from(vec![Some(NOW - 5), None]).with_timezone("UTC"))),
        ("node", texts(&[None, Some("b1")])),
        ("load1", floats(&[1.0, 2.0])),
    ]);
    let decoded = read(&sent, "host").unwrap();
    check(&decoded);
    let told: Vec<_> = rows(&decoded, "host").iter().map(|row| (row["ts"].clone(), row["node"].clone())).collect();
    assert_eq!(
        told,
        [(json!("2026-11-24T09:59:59.999995Z"), json!("sender")), (json!("2026-11-24T10:00:00Z"), json!("b1"))]
    );
    assert!(decoded.tally.no_time);
    check(&read(&table(vec![("load1", floats(&[1.0]))]), "host").unwrap());
}

#[test]
fn subscribers_are_dropped_and_counted() {
    let sent = table(vec![
        ("load1", floats(&[1.0, 2.0])),
        ("imsi", texts(&[Some("001"), None])),
        ("attributes", attributes(&[&[("ue_id", "7"), ("a", "1"), ("a", "2")], &[]])),
    ]);
    let decoded = read(&sent, "host").unwrap();
    check(&decoded);
    assert_eq!(decoded.tally.dropped_fields, 2);
    assert_eq!(rows(&decoded, "host")[0]["attributes"], json!({"a": "1"}));
    let clean = table(vec![("load1", floats(&[1.0])), ("attributes", attributes(&[&[("a", "1")]]))]);
    assert_eq!(row(&read(&clean, "host").unwrap(), "host")["attributes"], json!({"a": "1"}));
}

#[test]
fn bodies_that_do_not_fit_are_refused_by_reason() {
    let of = |rows: &RecordBatch, stream: &str| read(rows, stream).unwrap_err().reason;
    let good = table(vec![("utilization", floats(&[0.5]))]);
    assert_eq!(of(&good, "no_such"), Reason::UnknownStream);
    let wrong = read(&table(vec![("utilization", texts(&[Some("x")]))]), "accelerator").unwrap_err();
    assert_eq!(wrong.reason, Reason::WrongType);
    assert_eq!(wrong.message, "column `utilization` of stream `accelerator` is Utf8 and must be Float64");
    let many: Vec<(String, String)> = (0..300).map(|n| (format!("k{n}"), "v".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(of(&table(vec![("attributes", attributes(&[&many]))]), "host"), Reason::TooManyLabels);
    let field = Arc::new(Field::new("utilization", arrow::datatypes::DataType::Float64, true));
    let schema = Arc::new(arrow::datatypes::Schema::new(vec![Arc::clone(&field), field]));
    let twice = RecordBatch::try_new(schema, vec![floats(&[1.0]), floats(&[2.0])]).unwrap();
    assert_eq!(of(&twice, "accelerator"), Reason::Malformed);
    for body in [&b"hello"[..], b"", b"\xff\xff\xff\xff\x10\0\0\0ARROW"] {
        let error = decode(&Bytes::copy_from_slice(body), "accelerator", &context()).unwrap_err();
        assert_eq!(error.reason, Reason::Malformed);
    }
    let limits = airan_model::limits::Limits { request_bytes: 64, ..airan_model::limits::Limits::DOCUMENTED };
    let big = ipc::encode(&table(vec![("utilization", floats(&[0.5; 1_000]))])).unwrap();
    let error = decode(&big, "accelerator", &Context { limits: &limits, ..context() }).unwrap_err();
    assert_eq!(error.reason, Reason::TooLarge);
}

/// Scenario: one row with several hundred thousand attributes, no two of one name.
/// Guarantees: refused by their number before they are compared with each other, which would take minutes.
#[test]
fn a_row_with_very_many_attributes_is_refused_at_once() {
    let names: Vec<String> = (0..400_000).map(|number| format!("{number:x}")).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    let body = table(vec![("load1", floats(&[1.0])), ("attributes", attributes(&[&pairs]))]);
    let begin = std::time::Instant::now();
    assert_eq!(read(&body, "host").unwrap_err().reason, Reason::TooManyLabels);
    assert!(begin.elapsed() < std::time::Duration::from_secs(10), "{:?}", begin.elapsed());
}
