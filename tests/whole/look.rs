//! Looking on: accelerators without an exporter, `airan top` and `airan tap`, and that they disturb nobody.

use std::cell::Cell;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::edge::Edge;
use super::site::{DEADLINE, until};

/// A device with a slice, as nvidia-smi prints it.
const XML: &str = "<?xml version=\"1.0\" ?><!DOCTYPE nvidia_smi_log SYSTEM \"nvsmi_device_v12.dtd\"><nvidia_smi_log>\
    <driver_version>535.54.03</driver_version><gpu id=\"00000000:01:00.0\"><product_name>NVIDIA A100</product_name>\
    <uuid>GPU-whole</uuid><mig_mode><current_mig>Enabled</current_mig></mig_mode><mig_devices><mig_device>\
    <gpu_instance_id>3</gpu_instance_id><fb_memory_usage><used>12 MiB</used></fb_memory_usage></mig_device></mig_devices>\
    <utilization><gpu_util>N/A</gpu_util></utilization>\
    <gpu_power_readings><power_draw>67.03 W</power_draw></gpu_power_readings></gpu></nvidia_smi_log>";

/// An nvidia-smi that prints [`XML`], or hangs while a file `hang` lies beside it.
fn nvidia_smi(folder: &Path) {
    let path = folder.join("nvidia-smi");
    let script = format!("#!/bin/sh\n[ -e '{}' ] && exec sleep 600\necho '{XML}'\n", folder.join("hang").display());
    std::fs::write(&path, script).expect("a script");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("to run");
}

/// Scenario: a host whose nvidia-smi works, then hangs, then works again, while the host is collected beside it.
/// Guarantees: device and slice are in the lake, told apart, with base units; while it hangs its looks are counted as failures and
/// everything else goes on; it comes back by itself; the process stops in time while it hangs; the sums add up.
#[tokio::test(flavor = "multi_thread")]
async fn accelerators_are_read_and_a_driver_that_hangs_stops_nobody() {
    let programs = tempfile::tempdir().expect("a folder");
    nvidia_smi(programs.path());
    let hang = programs.path().join("hang");
    let mut edge = Edge::new("accelerators");
    edge.read_accelerators("{source: nvidia-smi, interval: 1s}");
    let process = edge.up_with(programs.path());
    edge.ready().await;
    until("rows of accelerators in the lake", || async { edge.count("accelerator").filter(|rows| *rows > 1) }).await;
    let rows = edge.query(
        "SELECT device, slice, max(power_watts) AS watts, max(memory_used_bytes) AS used, max(utilization) AS busy, \
         max(mig_mode) AS mig, max(source) AS source FROM accelerator GROUP BY device, slice ORDER BY slice NULLS FIRST",
    );
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert_eq!((&rows[0]["watts"], &rows[0]["busy"], &rows[0]["mig"]), (&67.03.into(), &Value::Null, &1.into()));
    assert_eq!((&rows[1]["slice"], &rows[1]["used"]), (&"3".into(), &12_582_912.0.into()));
    assert!(rows.iter().all(|row| row["device"] == "GPU-whole" && row["source"] == "nvidia-smi"), "{rows:?}");

    let of = |name: &'static str, labels: &'static [&'static str]| {
        let edge = &edge;
        async move { edge.scrape().await.map(|scrape| scrape.sum(name, labels)) }
    };
    let failures: &[&str] = &["collector=\"accelerator\"", "outcome=\"failure\""];
    let works: &[&str] = &["collector=\"accelerator\"", "outcome=\"success\""];
    let host: &[&str] = &["from=\"host\""];
    assert_eq!(of("airan_agent_accelerator_source", &["source=\"nvidia-smi\""]).await, Some(1.0));
    assert_eq!(of("airan_agent_accelerator_devices", &[]).await, Some(1.0));
    std::fs::write(&hang, "").expect("a file");
    until("looks that fail", || async { of("airan_agent_collections_total", failures).await.filter(|n| *n >= 2.0) })
        .await;
    let before = of("airan_agent_collected_rows_total", host).await.expect("metrics");
    until("the host is collected meanwhile", || async {
        of("airan_agent_collected_rows_total", host).await.filter(|rows| *rows >= before + 3.0)
    })
    .await;
    std::fs::remove_file(&hang).expect("gone");
    let worked = of("airan_agent_collections_total", works).await.expect("metrics");
    until("looks that work again", || async {
        of("airan_agent_collections_total", works).await.filter(|looks| *looks > worked)
    })
    .await;
    edge.sums_add_up().await;
    std::fs::write(&hang, "").expect("a file");
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let (status, said) = process.stop(Duration::from_secs(20));
    assert!(status.success(), "{status}: {said:#?}");
}

/// Scenario: `airan up` that collects this host; `airan top` beside it, as a table and as JSON, and where nobody answers.
/// Guarantees: sources, shards and streams have lines with their rates and lags; a wrong address is told in words.
#[tokio::test(flavor = "multi_thread")]
async fn top_shows_sources_rates_and_lags() {
    let edge = Edge::new("top");
    let _process = edge.up();
    edge.ready().await;
    until("a host that is collected", || async {
        let rows: Vec<Value> = serde_json::from_str(&edge.run(&["top", "--once", "--format", "json"])).expect("JSON");
        let line = |part: &str, name: &str| rows.iter().find(|row| row["part"] == part && row["name"] == name);
        let number = |part: &str, name: &str, column: &str| -> Option<f64> {
            line(part, name)?[column].as_str()?.parse::<f64>().ok()
        };
        assert_eq!(rows.iter().filter(|row| row["part"] == "shard").count(), 2, "{rows:?}");
        let is_alive = number("source", "host", "rows_per_second")? > 0.0 && number("door", "agent", "rows")? > 0.0;
        let has_lags =
            number("shard", "0", "behind_seconds").is_some() && number("stream", "host", "behind_seconds")? > 0.0;
        (is_alive && has_lags).then_some(())
    })
    .await;
    let url = format!("http://127.0.0.1:{}", edge.gateway_admin());
    let table = edge.run(&["top", "--once", "--url", &url]);
    assert!(table.starts_with(&format!("airan at {url}: ready")), "{table}");
    assert!(table.lines().any(|line| line.starts_with("source") && line.contains("host")), "{table}");
    let told = edge.run_in_vain("up.yaml", &["top", "--once", "--url", "http://127.0.0.1:9"]);
    assert!(told.contains("no airan answers at http://127.0.0.1:9"), "{told}");
}

/// Scenario: a hundred browsers ask for windows at once, again and again, of an `airan up` that takes rows meanwhile.
/// Guarantees: some are answered, those that are too many are told to come again in a second, none fails in another way; rows are
/// taken all the while, and afterwards one who asks alone is answered.
#[tokio::test(flavor = "multi_thread")]
async fn too_many_looks_at_once_are_told_to_come_again() {
    let edge = Edge::new("crowd");
    let process = edge.up();
    edge.ready().await;
    until("rows of this host", || async { edge.count("host").filter(|rows| *rows > 0) }).await;
    let page = format!("http://127.0.0.1:{}/api/windows?site=local&pipeline=host_load&hours=", edge.gateway_admin());
    let client = reqwest::Client::new();
    let (answered, too_many) = (Cell::new(0), Cell::new(0));
    until("both answers", || {
        let asked: Vec<_> = (1..=100).map(|hours| tokio::spawn(client.get(format!("{page}{hours}")).send())).collect();
        let (edge, answered, too_many) = (&edge, &answered, &too_many);
        async move {
            let row = "{\"stream\":\"timing\",\"node\":\"n\",\"clock\":\"c\"}\n";
            assert_eq!(edge.push("/v1/ndjson", "application/x-ndjson", row).await.0, 200);
            for answer in asked {
                let answer = answer.await.expect("a task").expect("an answer");
                let (status, retry) = (answer.status().as_u16(), answer.headers().get("retry-after").cloned());
                let text = answer.text().await.expect("text");
                match status {
                    200 => answered.set(answered.get() + 1),
                    429 => {
                        assert_eq!(retry.as_ref().map(|retry| retry.as_bytes()), Some(&b"1"[..]));
                        assert!(text.contains("ask again"), "{text}");
                        too_many.set(too_many.get() + 1);
                    }
                    other => panic!("{other}: {text}"),
                }
            }
            (answered.get() > 0 && too_many.get() > 0).then_some(())
        }
    })
    .await;
    println!("{} answered, {} told to come again", answered.get(), too_many.get());
    let alone = client.get(format!("{page}1")).send().await.expect("an answer");
    assert_eq!(alone.status().as_u16(), 200);
    edge.sums_add_up().await;
    let (status, said) = process.stop(Duration::from_secs(20));
    assert!(status.success(), "{status}: {said:#?}");
}

/// Scenario: taps on a running `airan up`: of two nodes' rows one is wanted; a stream nobody has; a count that is not reached.
/// Guarantees: exactly the wanted rows come out, as they were pushed, a JSON object a line; the taps end by themselves; no shard
/// saw them: each is owned by the same claim as before, nothing is rebuilt, and the sums add up.
#[tokio::test(flavor = "multi_thread")]
async fn tap_shows_rows_as_they_pass_and_disturbs_nobody() {
    let edge = Edge::new("tap");
    let process = edge.up();
    edge.ready().await;
    let claims = || async {
        let scrape = edge.scrape().await?;
        Some((scrape.sum("airan_lake_claims_total", &[]), scrape.sum("airan_lake_fenced_total", &[])))
    };
    let before = until("claims", &claims).await;
    let begin = Instant::now();
    let tap =
        edge.start(&["tap", "accelerator", "--site", "unassigned", "--node", "n2", "--count", "3", "--timeout", "60s"]);
    let mut pushed = 0;
    let lines = until("three rows of n2", || {
        pushed += 1;
        let body = format!(
            "{{\"stream\":\"accelerator\",\"node\":\"n1\",\"device\":\"a{pushed}\",\"power_watts\":1}}\n\
             {{\"stream\":\"accelerator\",\"node\":\"n2\",\"device\":\"b{pushed}\",\"power_watts\":{pushed}}}\n\
             {{\"stream\":\"timing\",\"node\":\"n2\",\"clock\":\"c\"}}\n"
        );
        let (edge, tap) = (&edge, &tap);
        async move {
            let (status, text) = edge.push("/v1/ndjson", "application/x-ndjson", body).await;
            assert_eq!(status, 200, "{text}");
            let said = tap.said();
            (said.len() >= 3).then_some(said)
        }
    })
    .await;
    let rows: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect("a JSON object")).collect();
    assert_eq!(rows.len(), 3, "{rows:?}");
    for row in &rows {
        let device = row["device"].as_str().expect("a device");
        assert_eq!((&row["node"], &row["site"]), (&"n2".into(), &"unassigned".into()), "{row}");
        assert_eq!(device, format!("b{}", row["power_watts"]).trim_end_matches(".0"), "{row}");
        assert!(row["ts"].as_str().is_some_and(|ts| ts.ends_with('Z')), "{row}");
    }
    let (mut tap, end) = (tap, Instant::now() + DEADLINE);
    while tap.runs() {
        assert!(Instant::now() < end, "the tap has its three rows and goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(begin.elapsed() < DEADLINE);

    let told = edge.run_in_vain("up.yaml", &["tap", "acelerator"]);
    assert!(told.contains("there is no stream `acelerator`") && told.contains("accelerator"), "{told}");
    let told = edge.run_in_vain("up.yaml", &["tap", "cell", "--count", "1", "--timeout", "1s"]);
    assert!(told.contains("0 rows of 1 came within 1s"), "{told}");
    assert_eq!(edge.run(&["tap", "cell", "--timeout", "1s"]), "");

    assert_eq!(until("claims", &claims).await, before, "a tap is no owner");
    edge.sums_add_up().await;
    let (status, said) = process.stop(Duration::from_secs(20));
    assert!(status.success(), "{status}: {said:#?}");
}
