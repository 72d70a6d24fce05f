//! Several processors over Apache Kafka: joining, leaving, killed, frozen, cut off, a broker that is started again, and messages
//! that have gone. Whatever was done, the rows of the lake are those that were acknowledged, each once (`fleet.rs`).
//!
//! Runs where `tests/kafka.sh` has started a broker.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::MutexGuard;

use super::fleet::{BODY_ROWS, Fleet, SITES, is_of};
use super::kafka::BROKER;
use super::site::{newer_catalog, now_micros, until};
use crate::broker::{Newcomer, Wire, delete_records};

/// Within this a graceful stop ends, and shards are claimed again after a crash.
const THIRTY: Duration = Duration::from_secs(30);
/// The session's timeout of a member, and a little: after this the group has given its shards away.
const SESSION: Duration = Duration::from_secs(14);

/// From an acknowledgement until the rows are with their shards: one fetch.
const TO_THE_SHARDS: Duration = Duration::from_millis(200);

/// The broker, and the right to use it alone; None where there is none, said loudly.
async fn broker(test: &str) -> Option<(String, MutexGuard<'static, ()>)> {
    let Ok(address) = std::env::var("AIRAN_KAFKA") else {
        eprintln!("NOT TESTED: {test}: no AIRAN_KAFKA; tests/kafka.sh starts a broker and sets it");
        return None;
    };
    Some((address, BROKER.lock().await))
}

/// Scenario: processors join a group at work, leave it in order, and one is killed: once it is gone for good, once it is started
/// again at once under its name.
/// Guarantees: shards move to whoever is there, each with one at a time; a graceful stop ends within 30 s, and after it
/// as after a kill the shards are claimed within 30 s; nothing is lost or doubled.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_many_processors_join_leave_and_die() {
    let Some((broker, _alone)) = broker("processors that join, leave and die").await else { return };
    let mut fleet = Fleet::new("many", &broker).await;
    fleet.join("one", &broker);
    fleet.share(&["one"]).await;
    let sender = fleet.send();
    fleet.let_pass(4).await;
    fleet.join("two", &broker);
    let joined = fleet.share(&["one", "two"]).await;
    fleet.join("three", &broker);
    fleet.share(&["one", "two", "three"]).await;
    fleet.commits(&["one", "two", "three"]).await;

    let stopped = fleet.stop("three");
    let taken = fleet.share(&["one", "two"]).await;
    println!(
        "a processor joined in {joined:?}; one stopped in {stopped:?}, and its shards were at work again {taken:?} later"
    );
    assert!(stopped < THIRTY, "{stopped:?}");
    assert!(taken < THIRTY, "{taken:?}");
    fleet.commits(&["one", "two"]).await;

    fleet.kill("two");
    let taken = fleet.share(&["one"]).await;
    println!("killed for good: its shards were at work again after {taken:?}");
    assert!(taken < THIRTY, "{taken:?}");
    fleet.commits(&["one"]).await;
    fleet.join("two", &broker);
    fleet.share(&["one", "two"]).await;

    fleet.kill("two");
    fleet.join("two", &broker);
    let back = fleet.share(&["one", "two"]).await;
    println!("killed and started again: both were at work after {back:?}");
    assert!(back < THIRTY, "{back:?}");
    fleet.commits(&["one", "two"]).await;
    fleet.finish(sender).await;
    fleet.account(&["one", "two"], &|_, _| false).await;
    for name in ["one", "two"] {
        assert!(fleet.stop(name) < THIRTY);
    }
}

/// Scenario: a processor is frozen past the session's timeout with work in its hands, and thawed when another has its shards.
/// Guarantees: K2, what it held is dropped or known as a duplicate; it comes back into the group; nothing is lost or doubled.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_many_a_frozen_processor_is_a_harmless_zombie() {
    let Some((broker, _alone)) = broker("a frozen processor").await else { return };
    let mut fleet = Fleet::new("frozen", &broker).await;
    fleet.join("one", &broker);
    fleet.join("two", &broker);
    fleet.share(&["one", "two"]).await;
    let sender = fleet.send();
    fleet.commits(&["one", "two"]).await;
    for round in 0..2 {
        let name = ["one", "two"][round];
        let other = ["two", "one"][round];
        // A body has just reached its shards, and they commit each second: some of it is not committed yet.
        fleet.let_pass(1).await;
        tokio::time::sleep(TO_THE_SHARDS).await;
        fleet.member(name).signal("STOP");
        let taken = fleet.share(&[other]).await;
        println!("{name} frozen: {other} had all shards after {taken:?}");
        fleet.commits(&[other]).await;
        fleet.member(name).signal("CONT");
        let back = fleet.share(&["one", "two"]).await;
        println!("{name} thawed: both were at work after {back:?}");
        fleet.commits(&["one", "two"]).await;
    }
    let mut fenced = 0.0;
    for name in ["one", "two"] {
        fenced += fleet.metric(name, "airan_processor_fenced_total").await.expect("metrics");
    }
    assert!(fenced > 0.0, "no zombie had anything in its hands: the scenario shows nothing");
    fleet.finish(sender).await;
    fleet.account(&["one", "two"], &|_, _| false).await;
}

/// Scenario: one of two processors is cut off from the broker past the session's timeout, and comes back; then the broker is
/// started again under both.
/// Guarantees: the other takes over; the one cut off says that it is not ready and is no danger; nothing is lost or doubled.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_many_a_processor_cut_off_from_the_broker_is_replaced() {
    let Some((broker, _alone)) = broker("a processor that is cut off").await else { return };
    let (Ok(ports), Ok(script)) = (std::env::var("AIRAN_KAFKA_WIRE"), std::env::var("AIRAN_KAFKA_SCRIPT")) else {
        eprintln!("NOT TESTED: a processor that is cut off: no AIRAN_KAFKA_WIRE; tests/kafka.sh sets it");
        return;
    };
    let wire = Wire::of(&ports).expect("a wire");
    let mut fleet = Fleet::new("cut", &broker).await;
    fleet.join("near", &broker);
    fleet.join("far", &wire.address());
    fleet.share(&["near", "far"]).await;
    let sender = fleet.send();
    fleet.commits(&["near", "far"]).await;
    wire.cut(Newcomer::Waits);
    let taken = fleet.share(&["near"]).await;
    println!("cut off: the other had all shards after {taken:?}");
    assert!(taken < THIRTY, "{taken:?}");
    let cut = Instant::now();
    fleet.commits(&["near"]).await;
    tokio::time::sleep(SESSION.saturating_sub(cut.elapsed())).await;
    wire.mend();
    fleet.share(&["near", "far"]).await;
    fleet.commits(&["near", "far"]).await;

    let status = Command::new(&script).arg("restart").status().expect("the script runs");
    assert!(status.success(), "the broker restarts");
    fleet.let_pass(4).await;
    fleet.share(&["near", "far"]).await;
    fleet.commits(&["near", "far"]).await;
    fleet.finish(sender).await;
    fleet.account(&["near", "far"], &|_, _| false).await;
}

/// Scenario: while no processor runs, the messages of one partition are deleted; then two start.
/// Guarantees: that shard stops and the loss is named, by the processor and by `airan lag`; the others go on; nothing is skipped
/// without --yes or where nothing is lost; once the loss is accepted the shard goes on without a restart of the process, and
/// nothing but what was deleted is missing.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_many_a_lost_range_stops_its_shard_alone_until_it_is_accepted() {
    let Some((broker, _alone)) = broker("a lost range").await else { return };
    let mut fleet = Fleet::new("lost", &broker).await;
    fleet.join("one", &broker);
    fleet.share(&["one"]).await;
    let sender = fleet.send();
    fleet.let_pass(6).await;
    fleet.commits(&["one"]).await;
    sender.stop().await;
    let first_lost = fleet.sent();
    until("all is committed", || async { (fleet.edge.count("accelerator")? == first_lost * BODY_ROWS).then_some(()) })
        .await;
    fleet.stop("one");
    let partition = 2;
    let sender = fleet.send();
    fleet.let_pass(6).await;
    sender.stop().await;
    let last_lost = fleet.sent();
    let lag = fleet.lag();
    let (committed, end) =
        (&lag[partition]["committed_offset"], lag[partition]["end_offset"].as_i64().expect("an offset"));
    assert!(committed.as_i64().is_some_and(|committed| committed < end), "{lag:?}");
    let topic = lag[partition]["topic"].as_str().expect("a topic").to_owned();
    delete_records(&broker, &topic, partition as i32, end).expect("the records are deleted");
    fleet.join("one", &broker);
    fleet.join("two", &broker);
    let sender = fleet.send();
    let stopped = format!("shard {partition} has stopped: offsets {committed} to {} are no longer on the bus", end - 1);
    until("the loss is named", || async { fleet.not_ready(&["one", "two"]).await?.contains(&stopped).then_some(()) })
        .await;
    let before = fleet.lag();
    assert_eq!(before[partition]["lost_offsets"], json!(end - committed.as_i64().expect("an offset")));
    until("the others go on", || async {
        let now = fleet.lag();
        let others = now.iter().zip(&before).enumerate().filter(|(index, _)| *index != partition);
        others.clone().all(|(_, (now, before))| now["commit"].as_i64() > before["commit"].as_i64()).then_some(())
    })
    .await;

    let shard = format!("{topic}/{partition}");
    let said = fleet.edge.run_in_vain("processor.yaml", &["shard", "skip", &shard]);
    assert!(said.contains("nothing was changed") && said.contains("--yes"), "{said}");
    let said = fleet.edge.run_in_vain("processor.yaml", &["shard", "skip", &format!("{topic}/0"), "--yes"]);
    assert!(said.contains("nothing is lost"), "{said}");
    let said = fleet.edge.run(&["shard", "skip", &shard, "--yes"]);
    assert!(said.contains(&format!("the shard goes on at offset {end}")), "{said}");
    fleet.share(&["one", "two"]).await;
    fleet.commits(&["one", "two"]).await;
    assert_eq!(fleet.lag()[partition]["skipped_offsets"], json!(end - committed.as_i64().expect("an offset")));
    fleet.finish(sender).await;
    let is_lost = |site: usize, second: i64| (first_lost..last_lost).contains(&second) && is_of(site, partition);
    assert!(
        (0..SITES).any(|site| is_lost(site, first_lost)),
        "no site has rows in partition {partition}: choose another"
    );
    fleet.account(&["one", "two"], &is_lost).await;
}

/// Scenario: a gateway of a newer release knows a stream that the processors do not; then these are upgraded, and what they had
/// refused is replayed, twice.
/// Guarantees: what was refused is listed with its reason and can be shown; it cannot be replayed to a catalog that refuses it
/// again; after the upgrade each row is stored once, however often it is replayed; what a door refused is said to be its sender's.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_many_what_was_refused_can_be_replayed_after_an_upgrade() {
    let Some((broker, _alone)) = broker("a replay").await else { return };
    let newer = newer_catalog();
    let catalog = format!("catalog: {{folder: \"{}\"}}\n", newer.path().display());
    let mut fleet = Fleet::new_with("replay", &broker, &catalog).await;
    fleet.join("one", &broker);
    fleet.share(&["one"]).await;
    let edge = std::sync::Arc::clone(&fleet.edge);
    let row = |n: i64| json!({"stream": "meter", "node": "edge-3", "ts": now_micros(), "reading": n});
    let body: String = (0..7).map(|n| format!("{}\n", row(n))).collect();
    let (status, said) = until("the gateway is at work", || async {
        let (status, said) = edge.push("/v1/ndjson", "application/x-ndjson", body.clone()).await;
        (status != 503 && status != 0).then_some((status, said))
    })
    .await;
    assert_eq!(status, 200, "{said}");
    let (status, said) = edge.push("/v1/ndjson", "application/x-ndjson", "no JSON\n").await;
    assert!(status < 500 && status != 0, "{status} {said}");
    let listed = || -> Vec<serde_json::Value> {
        let out = edge.run(&["rejected", "list", "--format", "json"]);
        serde_json::from_str(&out).expect("airan rejected list prints JSON")
    };
    let id_of = |door: &str| listed().iter().find(|entry| entry["door"] == door)?["id"].as_str().map(str::to_owned);
    let id = until("the processor's refusal", || async { id_of("bus") }).await;
    let at_the_door = until("the door's refusal", || async { id_of("ndjson") }).await;
    let entry = listed().into_iter().find(|entry| entry["id"] == id.as_str()).expect("it is listed");
    assert_eq!(
        (&entry["reason"], &entry["rows"], &entry["replayed"]),
        (&json!("unknown_stream"), &json!("7"), &json!(""))
    );
    let shown = edge.run(&["rejected", "show", &id]);
    assert!(shown.contains("message.headers.airan-stream: meter") && shown.contains("no stream `meter`"), "{shown}");
    let said = edge.run_in_vain("processor.yaml", &["rejected", "replay", &id, &at_the_door]);
    assert!(
        said.contains("no stream `meter` in this catalog") && said.contains("its sender has to send it again"),
        "{said}"
    );

    fleet.stop("one");
    fleet.join_with("one", &broker, &catalog);
    fleet.share(&["one"]).await;
    let replay = ["rejected", "replay", "--reason", "unknown_stream"];
    let said = edge.run_as("one.yaml", &replay);
    assert!(said.contains("1 messages with 7 rows sent again"), "{said}");
    until("the rows are stored", || async { (edge.count("meter")? == 7).then_some(()) }).await;
    let said = edge.run_in_vain("one.yaml", &replay);
    assert!(said.contains("1 not sent: sent again before"), "{said}");
    assert_eq!(edge.count("meter"), Some(7));
    let entry = listed().into_iter().find(|entry| entry["id"] == id.as_str()).expect("it is listed");
    assert_eq!(entry["replayed"], json!("yes"));
    fleet.stop("one");
    edge.lake_is_sound();
}
