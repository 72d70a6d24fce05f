use airan_model::time::{DAY, MINUTE, parse_rfc3339};
use arrow::record_batch::RecordBatch;

use super::*;
use crate::testing::{NOW, accelerator, accelerator_at, catalog, inventory, table};

/// Admits for 64 partitions, sender `192.0.2.1`, batch 7.
fn admitted(decoded: &[DecodedRows]) -> Result<Admitted, AdmitError> {
    admitted_after(None, decoded)
}

/// The same, where another inventory was in force before.
fn admitted_after(before: Option<&Before>, decoded: &[DecodedRows]) -> Result<Admitted, AdmitError> {
    let catalog = catalog();
    admit(
        decoded,
        &Admission {
            layouts: &Layout::of_catalog(&catalog),
            inventory: &inventory(),
            before,
            partitions: 64,
            plausibility: Plausibility::default(),
            received_at: NOW,
            source: "ndjson/json",
            sender: "192.0.2.1",
            batch: BatchId(7),
        },
    )
}

fn joined(part: &Part) -> RecordBatch {
    part.layout.join(&[&part.rows]).unwrap()
}

fn texts(rows: &RecordBatch, column: &str) -> Vec<String> {
    let column = rows.column_by_name(column).unwrap_or_else(|| panic!("column {column}"));
    column.as_string::<i32>().iter().map(|text| text.unwrap_or("null").to_owned()).collect()
}

fn micros(rows: &RecordBatch, column: &str) -> Vec<i64> {
    rows.column_by_name(column).unwrap().as_primitive::<TimestampMicrosecondType>().values().to_vec()
}

fn seqs(rows: &RecordBatch) -> Vec<i64> {
    rows.column_by_name("seq").unwrap().as_primitive::<Int64Type>().values().to_vec()
}

/// Scenario: rows of one node.
/// Guarantees: one part, with everything the gateway adds, in catalog order and of the catalog's types.
#[test]
fn rows_of_one_node_get_site_time_and_identity() {
    let catalog = catalog();
    let admitted = admitted(&[accelerator(&catalog, &["a1", "a1", "a1"])]).unwrap();
    let [part] = admitted.parts.as_slice() else { panic!("{admitted:?}") };
    assert_eq!((admitted.rows, part.partition), (3, partition_of("site-a", 64)));
    let rows = joined(part);
    assert_eq!(texts(&rows, "region"), ["north"; 3]);
    assert_eq!(texts(&rows, "site"), ["site-a"; 3]);
    assert_eq!(texts(&rows, "clock"), ["unknown"; 3]);
    assert_eq!(texts(&rows, "source"), ["ndjson/json"; 3]);
    assert_eq!(texts(&rows, "batch"), [BatchId(7).to_hex(), BatchId(7).to_hex(), BatchId(7).to_hex()]);
    assert_eq!((seqs(&rows), micros(&rows, "received_at")), (vec![0, 1, 2], vec![NOW; 3]));
    assert!(admitted.missing.is_empty() && admitted.implausible.is_empty());
    let stream = catalog.stream("accelerator").unwrap();
    let places: Vec<usize> =
        rows.schema().fields().iter().map(|field| stream.place_of(field.name()).unwrap()).collect();
    assert!(places.is_sorted(), "catalog order");
    stream.conform(&rows).unwrap();
}

/// Scenario: rows of several nodes, sites and two streams, mixed, one node unknown.
/// Guarantees: each row is in its site's partition once, `seq` is unique over the request, the unknown node is told.
#[test]
fn mixed_rows_are_split_by_the_partition_of_their_site() {
    let catalog = catalog();
    let nodes = ["a1", "b1", "a2", "nobody", "c1", "a1", "nobody"];
    let admitted = admitted(&[accelerator(&catalog, &nodes), accelerator(&catalog, &["b1", "b1"])]).unwrap();
    assert_eq!(admitted.rows, 9);
    assert_eq!(admitted.missing, vec![(Box::from("nobody"), 2)]);
    let mut seen = Vec::new();
    for part in &admitted.parts {
        let rows = joined(part);
        for ((node, site), seq) in texts(&rows, "node").iter().zip(texts(&rows, "site")).zip(seqs(&rows)) {
            assert_eq!(partition_of(&site, 64), part.partition);
            assert_eq!(
                site,
                match node.as_str() {
                    "a1" | "a2" => "site-a",
                    "b1" => "site-b",
                    "c1" => "site-c",
                    _ => UNASSIGNED,
                }
            );
            if seq < 7 {
                assert_eq!(node, nodes[seq as usize], "the order of the body is the order of seq");
            }
            seen.push(seq);
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..9).collect::<Vec<_>>());
}

/// Scenario: a node moves to another site and one is placed for the first time; rows of before and after, also of nodes that
/// stay, come in one request.
/// Guarantees: rows of before go where they went then, so that repetitions are known there; all others to the sites of now; a
/// node that is placed now is not told as missing.
#[test]
fn rows_of_before_a_move_go_where_they_went_then() {
    let catalog = catalog();
    // Before: `a1` was at site-b, `b1` where it is, `c1` nowhere.
    let text = "regions:\n- name: north\n  jurisdiction: eu\n  sites:\n  - {name: site-b, nodes: [a1, b1]}\n";
    let before = Before { inventory: Arc::new(Inventory::parse("test", text).unwrap()), until: NOW - MINUTE };
    let (old, new) = (NOW - 2 * MINUTE, NOW);
    let rows = [("a1", old), ("a1", new), ("a1", old), ("b1", old), ("c1", old), ("c1", new), ("a1", NOW - MINUTE)];
    let sites = |before: Option<&Before>| {
        let admitted = admitted_after(before, &[accelerator_at(&catalog, &rows)]).unwrap();
        assert!(admitted.missing.is_empty());
        let mut sites = vec![String::new(); rows.len()];
        for part in &admitted.parts {
            let rows = joined(part);
            for (seq, site) in seqs(&rows).into_iter().zip(texts(&rows, "site")) {
                assert_eq!(part.partition, partition_of(&site, 64));
                sites[seq as usize] = site;
            }
        }
        sites
    };
    assert_eq!(sites(Some(&before)), ["site-b", "site-a", "site-b", "site-b", UNASSIGNED, "site-c", "site-a"]);
    assert_eq!(sites(None), ["site-a", "site-a", "site-a", "site-b", "site-c", "site-c", "site-a"]);
}

/// Scenario: times of 1970 and 2100, on the edges, and none at all, among good ones.
/// Guarantees: only those are replaced, the sender's time is kept beside other attributes, and they are counted by node.
#[test]
fn implausible_times_are_replaced_and_kept() {
    let catalog = catalog();
    let far = parse_rfc3339("2100-01-01T00:00:00Z").unwrap();
    let times = [
        ("a1", NOW),
        ("a1", 0),
        ("b1", far),
        ("a1", NOW - 40 * DAY),
        ("a1", NOW + 5 * MINUTE),
        ("a1", NOW + 5 * MINUTE + 1),
    ];
    let mut rows = accelerator_at(&catalog, &times);
    let mut attributes = MapBuilder::new(
        Some(MapFieldNames { entry: "entries".into(), key: "keys".into(), value: "values".into() }),
        StringBuilder::new(),
        StringBuilder::new(),
    );
    for row in 0..times.len() {
        if row == 1 {
            attributes.keys().append_value("rack");
            attributes.values().append_value("r7");
        }
        attributes.append(row == 1).unwrap();
    }
    let mut columns: Vec<(String, ArrayRef)> = rows
        .rows
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .zip(rows.rows.columns().to_vec())
        .collect();
    columns.push(("attributes".to_owned(), Arc::new(attributes.finish())));
    rows.rows =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap();

    let admitted = admitted(&[rows]).unwrap();
    assert_eq!(admitted.implausible, vec![(Box::from("a1"), 2), (Box::from("b1"), 1)]);
    let part = admitted.parts.iter().find(|part| part.partition == partition_of("site-a", 64)).unwrap();
    let rows = joined(part);
    let is_a: Vec<usize> =
        texts(&rows, "node").iter().enumerate().filter(|(_, node)| *node == "a1").map(|(row, _)| row).collect();
    let (ts, clock) = (micros(&rows, "ts"), texts(&rows, "clock"));
    let of_a: Vec<_> = is_a.iter().map(|row| (ts[*row], clock[*row].as_str())).collect();
    assert_eq!(
        of_a,
        [
            (NOW, "unknown"),
            (NOW, "implausible"),
            (NOW - 40 * DAY, "unknown"),
            (NOW + 5 * MINUTE, "unknown"),
            (NOW, "implausible"),
        ]
    );
    let attributes = rows.column_by_name("attributes").unwrap().as_map();
    let entries = attributes.value(is_a[1]);
    assert_eq!(entries.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["rack", SENDER_TS]);
    assert_eq!(
        entries.column(1).as_string::<i32>().iter().flatten().collect::<Vec<_>>(),
        ["r7", "1970-01-01T00:00:00Z"]
    );
    assert!(attributes.is_null(is_a[0]), "a good row's attributes stay as they were");
    catalog.stream("accelerator").unwrap().conform(&rows).unwrap();
}

/// Scenario: rows that bring `batch`, `seq` and `source`, good and bad; and rows that bring none and no node.
/// Guarantees: an agent's identity is kept, one that is none is refused, a row without a node is its sender's.
#[test]
fn an_agents_identity_is_kept() {
    let catalog = catalog();
    let with = |batch: &str, seq: i64| {
        let ts = TimestampMicrosecondArray::from(vec![NOW, NOW]).with_timezone("UTC");
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("ts", Arc::new(ts)),
            ("node", Arc::new(StringArray::from(vec!["a1", "a1"]))),
            ("utilization", Arc::new(arrow::array::Float64Array::from(vec![0.5, 0.6]))),
            ("batch", Arc::new(StringArray::from(vec![batch, batch]))),
            ("seq", Arc::new(Int64Array::from(vec![seq, seq + 1]))),
            ("source", Arc::new(StringArray::from(vec!["scrape/prometheus"; 2]))),
        ];
        table(&catalog, "accelerator", columns)
    };
    let id = BatchId(u128::MAX - 3).to_hex();
    let kept = joined(&admitted(&[with(&id, 40)]).unwrap().parts[0]);
    assert_eq!((texts(&kept, "batch"), seqs(&kept)), (vec![id.clone(), id.clone()], vec![40, 41]));
    assert_eq!(texts(&kept, "source"), ["scrape/prometheus"; 2]);
    assert!(matches!(admitted(&[with("not hex", 0)]), Err(AdmitError::Identity)));
    assert!(matches!(admitted(&[with(&id, -1)]), Err(AdmitError::Identity)));

    let ts = TimestampMicrosecondArray::from(vec![NOW]).with_timezone("UTC");
    let bare = admitted(&[table(&catalog, "accelerator", vec![("ts", Arc::new(ts))])]).unwrap();
    assert_eq!(texts(&joined(&bare.parts[0]), "node"), ["192.0.2.1"]);
}

/// Scenario: rows with and without an identity of their own, with and without a `source` of their own.
/// Guarantees: `source` tells who made the identity, and keeps what the sender said; each door's name tells it too.
#[test]
fn the_source_tells_who_made_the_identity() {
    let catalog = catalog();
    let source_of = |own_identity: bool, source: Option<&str>| {
        let ts = TimestampMicrosecondArray::from(vec![NOW]).with_timezone("UTC");
        let mut columns: Vec<(&str, ArrayRef)> =
            vec![("ts", Arc::new(ts)), ("node", Arc::new(StringArray::from(vec!["a1"])))];
        if own_identity {
            columns.push(("batch", Arc::new(StringArray::from(vec![BatchId(9).to_hex()]))));
            columns.push(("seq", Arc::new(Int64Array::from(vec![3]))));
        }
        columns.extend(source.map(|source| ("source", Arc::new(StringArray::from(vec![source])) as ArrayRef)));
        texts(&joined(&admitted(&[table(&catalog, "accelerator", columns)]).unwrap().parts[0]), "source").remove(0)
    };
    for (own_identity, sent, named) in [
        (false, None, "ndjson/json"),
        (false, Some("scrape/prometheus"), "ndjson/scrape/prometheus"),
        (false, Some("otlp_http/json"), "otlp_http/json"),
        (true, None, "ndjson+id/json"),
        (true, Some("scrape/prometheus"), "scrape/prometheus"),
    ] {
        assert_eq!(source_of(own_identity, sent), named, "{own_identity} {sent:?}");
        assert_eq!(is_gateway_source(named), !own_identity, "{named}");
    }
    for door in crate::Door::ALL {
        assert!(is_gateway_source(&format!("{}/x", door.as_str())), "{door:?}");
    }
}

/// Scenario: a known column of another type, a second column of one name, and no rows at all.
/// Guarantees: refused by name; nothing comes of nothing.
#[test]
fn columns_that_cannot_be_taken_are_refused() {
    let catalog = catalog();
    let rows =
        table(&catalog, "accelerator", vec![("utilization", Arc::new(StringArray::from(vec!["0.5"])) as ArrayRef)]);
    let error = admitted(&[rows]).unwrap_err();
    assert!(error.to_string().contains("`utilization`"), "{error}");
    let rows = table(&catalog, "accelerator", vec![("zz_new", Arc::new(StringArray::from(vec!["x"])) as ArrayRef)]);
    let error = admitted(&[rows]).unwrap_err();
    assert_eq!(error.to_string(), "stream `accelerator` has no column `zz_new`");
    let none = admitted(&[accelerator(&catalog, &[])]).unwrap();
    assert!(none.rows == 0 && none.parts.is_empty());

    let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    for twice in ["site", "unknown"] {
        let rows =
            table(&catalog, "accelerator", vec![(twice, text("own")), ("node", text("a1")), (twice, text("other"))]);
        let error = admitted(&[rows]).unwrap_err().to_string();
        assert_eq!(error, format!("column `{twice}` occurs twice"));
    }
}
