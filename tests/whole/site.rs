//! A site under test: airan processes with a folder, free ports and their logs, and the few things a test asks of them.
//!
//! Waiting is always for a condition, with a deadline; what a process said is printed when the deadline passes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a condition may take before the test fails. Generous: the machine may be building beside us.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// The binary under test.
pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_airan")
}

/// A TCP port that nobody listens on at the time of asking.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address").port()
}

/// The wall clock, in microseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "a test is a sender with a clock of its own")]
pub fn now_micros() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_micros()).expect("before the year 294,000")
}

/// Calls `probe` until it answers, and panics with `what` when it has not within [`DEADLINE`].
pub async fn until<T, F>(what: &str, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let start = Instant::now();
    loop {
        if let Some(answer) = probe().await {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// One running airan process. Dropping it kills it.
pub struct Process {
    name: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts `airan ARGS…` in `dir` and collects what it prints.
    pub fn start(name: &str, dir: &Path, args: &[&str]) -> Process {
        Process::start_with(name, dir, args, None)
    }

    /// The same with a folder of programs before all others in its `PATH`.
    pub fn start_with(name: &str, dir: &Path, args: &[&str], programs: Option<&Path>) -> Process {
        let mut command = Command::new(binary());
        if let Some(programs) = programs {
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("PATH", format!("{}:{path}", programs.display()));
        }
        let mut child = command
            .args(args)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("airan starts");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let out: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().expect("stdout")), Box::new(child.stderr.take().expect("stderr"))];
        for pipe in out {
            let lines = lines.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    lines.lock().expect("lines").push(line);
                }
            });
        }
        Process { name: name.to_string(), child, lines }
    }

    /// Everything the process printed so far, both streams.
    pub fn said(&self) -> Vec<String> {
        self.lines.lock().expect("lines").clone()
    }

    /// Sends a signal by its name: `STOP` freezes the process, `CONT` lets it go on.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill").success());
    }

    /// SIGKILL, and the wait for its end.
    pub fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// SIGTERM, and how it ended. Panics when it has not within `limit`.
    pub fn stop(mut self, limit: Duration) -> (ExitStatus, Vec<String>) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return (status, self.said());
            }
            assert!(start.elapsed() < limit, "{} did not stop within {limit:?}: {:#?}", self.name, self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// True while the process runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    /// Peak resident memory so far, in MiB.
    pub fn peak_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process runs");
        let line = status.lines().find(|l| l.starts_with("VmHWM:")).expect("VmHWM");
        line.split_whitespace().nth(1).expect("a number").parse::<f64>().expect("a number") / 1024.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} said:", self.name);
            for line in self.said() {
                eprintln!("{line}");
            }
        }
    }
}

/// Runs `airan ARGS…` to its end; its standard output, or a panic with what it said.
pub fn run(dir: &Path, args: &[&str]) -> String {
    let out = Command::new(binary()).args(args).current_dir(dir).output().expect("airan runs");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "airan {args:?}: {said}{}", String::from_utf8_lossy(&out.stdout));
    String::from_utf8(out.stdout).expect("UTF-8")
}

/// The rows of `airan query --format json SQL` over the lake of `config`.
pub fn query(dir: &Path, config: &str, sql: &str) -> Vec<Value> {
    let out = run(dir, &["query", "--config", config, "--format", "json", sql]);
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{sql}: {e}: {out}"))
}

/// A scrape: every sample of a metrics page by its name and labels, as written.
#[derive(Debug)]
pub struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    /// Scrapes `url`; `None` where nobody answers.
    pub async fn of(url: &str) -> Option<Scrape> {
        let text = reqwest::get(url).await.ok()?.text().await.ok()?;
        let samples = text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| {
            let (series, value) = l.rsplit_once(' ')?;
            Some((series.to_string(), value.parse().ok()?))
        });
        Some(Scrape(samples.collect()))
    }

    /// The sum of all series of `name` whose text holds every part of `labels`.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        self.series(name).filter(|(s, _)| labels.iter().all(|l| s.contains(l))).map(|(_, v)| v).sum()
    }

    /// Every series of the metric `name`.
    pub fn series<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.iter().filter_map(move |(series, value)| {
            let rest = series.strip_prefix(name)?;
            (rest.is_empty() || rest.starts_with('{')).then_some((series.as_str(), *value))
        })
    }
}

/// The folder of samples that other people's systems wrote, or `None` with a loud line. `AIRAN_REQUIRE_SAMPLES` makes their
/// absence a failure.
pub fn samples() -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/samples");
    let folder = PathBuf::from(std::env::var("AIRAN_SAMPLES").unwrap_or_else(|_| default.to_string()));
    if folder.join("SOURCES.md").is_file() {
        return Some(folder);
    }
    assert!(std::env::var_os("AIRAN_REQUIRE_SAMPLES").is_none(), "no samples at {}", folder.display());
    eprintln!("NOT TESTED: no samples at {}; set AIRAN_SAMPLES to their folder", folder.display());
    None
}

/// The shipped catalog with one stream more, as a later release may have it.
pub fn newer_catalog() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/catalog");
    for entry in std::fs::read_dir(shipped).expect("the catalog").map_while(Result::ok) {
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("a copy");
    }
    let text = "streams:\n  - name: meter\n    meaning: a meter of a later release\n    period: 10s\n    columns:\n      \
                - {name: reading, kind: gauge, unit: none, meaning: \"what it reads\"}\n";
    std::fs::write(folder.path().join("meter.yaml"), text).expect("the folder takes a file");
    folder
}
