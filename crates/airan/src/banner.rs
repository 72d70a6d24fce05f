//! What `airan up` prints when it starts: where to look, and two lines to try.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use airan_agent::demo::Incident;
use airan_gateway::Addresses;
use airan_model::settings::DurationSetting;
use anyhow::Result;

use crate::config::Config;

/// What the command line said, for lines that can be copied.
pub struct Shown {
    /// `--data`.
    pub data: Option<PathBuf>,
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--demo`.
    pub demo: bool,
}

/// Prints it to stdout.
///
/// # Errors
/// If stdout is closed or this machine has no name.
pub fn print(config: &Config, shown: &Shown, admin: SocketAddr, doors: Addresses) -> Result<()> {
    let program = std::env::args().next().unwrap_or_else(|| "airan".to_owned());
    let mut text = text(&program, &config.node_name()?, &config.lake.path, shown, admin, doors);
    if shown.demo {
        let demo = &config.agent.demo;
        text.push_str(&demo_text(demo.day.get(), demo.begin.get()));
    }
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

fn text(program: &str, node: &str, lake: &str, shown: &Shown, admin: SocketAddr, doors: Addresses) -> String {
    let folders = [("--data", &shown.data), ("--config", &shown.config)].into_iter();
    let options: String = folders
        .filter_map(|(name, value)| {
            value.as_ref().map(|value| format!(" {name} {}", quoted(&value.display().to_string())))
        })
        .collect();
    let row = serde_json::json!({"stream": "accelerator", "node": node, "device": "GPU-0", "utilization": 0.5});
    let (admin, http) = (reachable(admin), reachable(doors.http));
    format!(
        "airan is up as node {node}; Ctrl-C ends it.
  page     http://{admin}/
  metrics  http://{admin}/metrics
  lake     {lake}
  doors    OTLP/HTTP http://{http}, OTLP/gRPC {grpc}
  query    {program} query{options} \"SELECT ts, node, load1, memory_available_bytes FROM host ORDER BY ts DESC LIMIT 5\"
  push     curl -sS -H 'content-type: application/x-ndjson' --data-binary {row} http://{http}/v1/ndjson
",
        grpc = reachable(doors.grpc),
        program = quoted(program),
        row = quoted(&row.to_string()),
    )
}

/// What a user of the demo must know, and when to look. `begin` of the first day is over.
fn demo_text(day: Duration, begin: Duration) -> String {
    let shown = |at: Duration| DurationSetting::from(Duration::from_secs(at.as_secs()));
    let when = if begin.is_zero() { "begins now".to_owned() } else { format!("is {} old", shown(begin)) };
    let mut text = format!(
        "  demo     SIMULATED: every number of site demo-site is made up, its rows have source = 'demo'. Its bad day of {} {when},
           and begins again when it is over:
",
        shown(day)
    );
    let mut incidents = airan_agent::demo::incidents(day);
    for incident in &mut incidents {
        // What is over comes again tomorrow.
        let later = if incident.begins < begin { day } else { Duration::ZERO };
        (incident.begins, incident.ends) = (incident.begins + later - begin, incident.ends + later - begin);
    }
    incidents.sort_by_key(|incident| incident.begins);
    for Incident { begins, ends, what } in incidents {
        text.push_str(&format!("           +{} to +{}: {what}\n", shown(begins), shown(ends)));
    }
    text
}

/// An address to connect to, of one to listen on.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a data folder with a blank, doors on all interfaces.
    /// Guarantees: the printed lines can be given to a shell as they are.
    #[test]
    fn printed_lines_can_be_copied() {
        let shown = Shown { data: Some("my data".into()), config: None, demo: false };
        let doors = Addresses { http: "0.0.0.0:4318".parse().unwrap(), grpc: "[::]:4317".parse().unwrap() };
        let text =
            text("target/release/airan", "it's", "my data/lake", &shown, "127.0.0.1:4320".parse().unwrap(), doors);
        assert!(text.contains("target/release/airan query --data 'my data' \"SELECT "), "{text}");
        assert!(text.contains("http://127.0.0.1:4318/v1/ndjson\n") && text.contains("OTLP/gRPC [::1]:4317"), "{text}");
        assert!(text.contains("page     http://127.0.0.1:4320/\n"), "{text}");
        assert!(text.contains(r#""node":"it'\''s""#), "{text}");
    }

    #[test]
    fn the_demo_says_that_it_is_one_and_when_to_look() {
        let text = demo_text(Duration::from_secs(1_800), Duration::ZERO);
        assert!(text.contains("SIMULATED") && text.contains("source = 'demo'"), "{text}");
        assert!(text.contains("+3m to +6m: cell demo-cell-3 is full"), "{text}");
        let text = demo_text(Duration::from_secs(1_800), Duration::from_secs(240));
        assert!(text.contains("day of 30m is 4m old") && text.contains("+29m to +32m: cell demo-cell-3"), "{text}");
        assert!(text.contains("+5m to +8m: GPU demo-gpu-2"), "{text}");
    }
}
