//! The results file: one JSON line a case, appended, never rewritten, so that long runs add up and go on where they stopped.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::compare::Late;
use crate::plan::{self, Plan};
use crate::site::Mode;

/// What was done to the victims.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Kills {
    /// SIGKILL at random moments.
    pub sigkill: u64,
    /// Deaths at named points.
    pub points: BTreeMap<String, u64>,
    /// Points that were asked for and not come to within the limit; the process was killed then.
    pub unreached: BTreeMap<String, u64>,
    /// SIGTERM, ended gracefully.
    pub stopped: u64,
    /// SIGSTOP and SIGCONT.
    pub frozen: u64,
    /// Times a victim was cut off from the broker. Lines of earlier releases say nothing of it, nor of what follows.
    #[serde(default)]
    pub cut: u64,
    /// Times the broker was started again.
    #[serde(default)]
    pub restarts: u64,
    /// Times committed records were deleted.
    #[serde(default)]
    pub deletions: u64,
    /// Times a member woke up, or came back, to hear that the group had given its partitions away.
    #[serde(default)]
    pub expelled: u64,
}

impl Kills {
    /// Processes that were killed without warning.
    pub fn total(&self) -> u64 {
        self.sigkill + self.points.values().sum::<u64>()
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Kills) {
        self.sigkill += other.sigkill;
        self.stopped += other.stopped;
        self.frozen += other.frozen;
        self.cut += other.cut;
        self.restarts += other.restarts;
        self.deletions += other.deletions;
        self.expelled += other.expelled;
        for (into, from) in [(&mut self.points, &other.points), (&mut self.unreached, &other.unreached)] {
            from.iter().for_each(|(name, count)| *into.entry(name.clone()).or_default() += count);
        }
    }
}

/// One case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CaseResult {
    /// What the victims were.
    pub mode: Mode,
    /// Seed of the run.
    pub seed: u64,
    /// Number of the case in it.
    pub case: u64,
    /// What was to be done. Lines of earlier releases have none.
    #[serde(default)]
    pub plan: Plan,
    /// What was done.
    pub kills: Kills,
    /// Rows that a door acknowledged.
    pub acknowledged: u64,
    /// Rows whose sender gave up on an answer.
    pub unknown: u64,
    /// Rows of an agent.
    pub agent_rows: u64,
    /// Acknowledged rows that the lake has not.
    pub lost: u64,
    /// Rows that the lake has more than once.
    pub doubled: u64,
    /// Windows compared.
    pub windows: u64,
    /// Windows that are missing, doubled or have other values.
    pub windows_wrong: u64,
    /// Late rows that stand in no window: zero where late windows are restated.
    pub late: u64,
    /// Duration.
    pub seconds: f64,
    /// Everything wrong, a line each. Empty: the case passed.
    pub failures: Vec<String>,
    /// Where the case is kept, if it failed.
    pub folder: Option<String>,
}

/// The cases in `file`. A last line that was cut off by a kill is left out.
pub fn read(file: &Path) -> Result<Vec<CaseResult>> {
    let opened = match std::fs::File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    let lines = BufReader::new(opened).lines().collect::<Result<Vec<_>, _>>()?;
    Ok(lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// Appends a case, and has it on disk before it returns.
pub fn append(file: &Path, case: &CaseResult) -> Result<()> {
    let mut opened = OpenOptions::new().create(true).append(true).open(file)?;
    // In one write, for several harnesses may share a file; and on a line of its own, whatever a kill has cut off before.
    let is_cut = std::fs::read(file)?.last().is_some_and(|byte| *byte != b'\n');
    let line = format!("{}{}\n", if is_cut { "\n" } else { "" }, serde_json::to_string(case)?);
    opened.write_all(line.as_bytes())?;
    Ok(opened.sync_data()?)
}

/// What was done to the victims of a mode, over all its cases.
pub fn kills_of(mode: Mode, cases: &[CaseResult]) -> Kills {
    let mut kills = Kills::default();
    cases.iter().filter(|case| case.mode == mode).for_each(|case| kills.add(&case.kills));
    kills
}

/// The points of a mode at which nothing of it has died.
pub fn never_died_at(mode: Mode, late: Late, cases: &[CaseResult]) -> Vec<&'static str> {
    let kills = kills_of(mode, cases);
    plan::points(mode, late).into_iter().filter(|name| !kills.points.contains_key(*name)).collect()
}

/// The sums of many cases, for people: first of all of them, then mode by mode, each with every point of it.
pub fn totals(cases: &[CaseResult]) -> String {
    let mut text = sums(cases);
    for mode in Mode::ALL {
        let of_mode: Vec<CaseResult> = cases.iter().filter(|case| case.mode == mode).cloned().collect();
        let Some(last) = of_mode.last() else { continue };
        let (kills, late) = (kills_of(mode, cases), last.plan.late);
        let points = plan::points(mode, late);
        let asked = |name: &str| match kills.unreached.get(name) {
            Some(times) => format!(" (and {times} in vain)"),
            None => String::new(),
        };
        let died = points.iter().filter_map(|name| Some((name, kills.points.get(*name)?)));
        let died: Vec<String> = died.map(|(name, times)| format!("{name} {times}{}", asked(name))).collect();
        let never: Vec<String> =
            never_died_at(mode, late, cases).into_iter().map(|name| format!("{name}{}", asked(name))).collect();
        text.push_str(&format!(
            "\n{}: {} cases, {} kills, {}, {} members expelled; {} of {} points were died at: {}\n{}: never died at: {}",
            mode.name(),
            of_mode.len(),
            kills.total(),
            others(&kills),
            kills.expelled,
            died.len(),
            points.len(),
            died.join(", "),
            mode.name(),
            if never.is_empty() { "none is left".to_owned() } else { never.join(", ") },
        ));
    }
    text
}

/// What was done beside kills and stops: freezes, and of the broker's faults those that there were.
fn others(kills: &Kills) -> String {
    let of_broker = [
        (kills.cut, "cut off from the broker"),
        (kills.restarts, "restarts of the broker"),
        (kills.deletions, "deletions of committed records"),
    ];
    let were = of_broker.iter().filter(|(times, _)| *times > 0).map(|(times, what)| format!(", {times} {what}"));
    format!("{} freezes{}", kills.frozen, were.collect::<String>())
}

fn sums(cases: &[CaseResult]) -> String {
    let mut kills = Kills::default();
    cases.iter().for_each(|case| kills.add(&case.kills));
    let sum = |of: fn(&CaseResult) -> u64| cases.iter().map(of).sum::<u64>();
    let failed = cases.iter().filter(|case| !case.failures.is_empty()).count();
    format!(
        "{} cases, {failed} failed, {:.0} s\nkills: {} = {} SIGKILL + {} at named points; beside them {} graceful stops, {}\n\
         rows: {} acknowledged, {} of agents, {} unknown; lost {}, doubled {}\nwindows: {} compared, {} wrong; late rows not in a window: {}",
        cases.len(),
        cases.iter().map(|case| case.seconds).sum::<f64>(),
        kills.total(),
        kills.sigkill,
        kills.points.values().sum::<u64>(),
        kills.stopped,
        others(&kills),
        sum(|case| case.acknowledged),
        sum(|case| case.agent_rows),
        sum(|case| case.unknown),
        sum(|case| case.lost),
        sum(|case| case.doubled),
        sum(|case| case.windows),
        sum(|case| case.windows_wrong),
        sum(|case| case.late),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(number: u64) -> CaseResult {
        let mut kills = Kills { sigkill: 3, ..Kills::default() };
        kills.points.insert("lake.commit.record".to_owned(), 2);
        CaseResult {
            mode: Mode::Local,
            seed: 1,
            case: number,
            plan: Plan::default(),
            kills,
            acknowledged: 10,
            unknown: 1,
            agent_rows: 0,
            lost: 0,
            doubled: 0,
            windows: 4,
            windows_wrong: 0,
            late: 0,
            seconds: 1.5,
            failures: Vec::new(),
            folder: None,
        }
    }

    /// Scenario: two cases, half a line, as a kill of the harness leaves it, and a third case.
    /// Guarantees: the three are read, the half is passed over, and kills add up.
    #[test]
    fn results_add_up_over_runs() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("results.jsonl");
        assert!(read(&file).unwrap().is_empty());
        append(&file, &case(0)).unwrap();
        append(&file, &case(1)).unwrap();
        OpenOptions::new().append(true).open(&file).unwrap().write_all(b"{\"mode\":\"loc").unwrap();
        append(&file, &case(2)).unwrap();
        let cases = read(&file).unwrap();
        assert_eq!(cases.iter().map(|case| case.case).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(totals(&cases).contains("kills: 15 = 9 SIGKILL + 6 at named points"), "{}", totals(&cases));
    }

    /// Scenario: cases of two modes, each with deaths at one point, one of them asked for another in vain; and a line that an earlier
    /// release wrote, without a plan and without counts of what was not done then.
    /// Guarantees: deaths count for their own mode; every other point of it is named as one that nothing died at.
    #[test]
    fn points_without_a_death_are_named_by_mode() {
        let mut over_kafka = CaseResult { mode: Mode::Kafka, ..case(0) };
        over_kafka.kills.points = [("lake.trim.mark".to_owned(), 1)].into();
        (over_kafka.kills.cut, over_kafka.kills.restarts, over_kafka.kills.deletions) = (3, 1, 2);
        over_kafka.kills.unreached = [("lake.trim.record".to_owned(), 4)].into();
        let mut line = serde_json::to_value(case(1)).unwrap();
        line.as_object_mut().unwrap().remove("plan");
        for of_later in ["cut", "restarts", "deletions", "expelled"] {
            assert!(line["kills"].as_object_mut().unwrap().remove(of_later).is_some());
        }
        let cases = [over_kafka, serde_json::from_value(line).unwrap()];
        let never = |mode| never_died_at(mode, Late::Restated, &cases);
        assert!(never(Mode::Kafka).contains(&"lake.commit.record") && !never(Mode::Kafka).contains(&"lake.trim.mark"));
        assert!(never(Mode::Local).contains(&"log.open.cut") && !never(Mode::Local).contains(&"lake.commit.record"));
        assert_eq!(never(Mode::S3).len(), plan::points(Mode::S3, Late::Restated).len());
        let told = totals(&cases);
        let kafka = told.lines().find(|line| line.starts_with("kafka: never died at: ")).unwrap();
        assert!(kafka.contains("lake.trim.record (and 4 in vain)") && !kafka.contains("lake.trim.mark"), "{told}");
        let others = "3 cut off from the broker, 1 restarts of the broker, 2 deletions of committed records";
        assert_eq!(told.matches(others).count(), 2, "of all, and of the mode: {told}");
        assert!(told.contains("local: 1 cases, 5 kills") && !told.contains("\ns3: "), "{told}");
    }
}
