//! Senders: one for each site, one body after the other, the same bytes again until they are acknowledged.
//!
//! | sender | does |
//! | --- | --- |
//! | 0, 2 | times in order, counters that grow |
//! | 1, 3 | holds every fifth body back until its windows have closed: late, and out of order |
//! | 5 | the same; its rows are erased meanwhile, more and more of them, and in the end |
//! | 4, [`PAST`] | rows of the day before, as of a node that was away: restatement makes its windows, compaction takes its files |
//!
//! Each of them sends every tenth acknowledged body once more, as one that missed the answer, and gives up on some bodies whose
//! outcome it does not know.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::dice::Dice;
use crate::ledger::{Body, Ledger, Row};
use crate::site;

/// Longer than the door's own timeout, so that its word is heard.
const ANSWER: Duration = Duration::from_secs(6);
/// Wait before the same bytes again.
const AGAIN: Duration = Duration::from_millis(120);
/// How long the last bodies may take once the victims are left alone.
const LAST: Duration = Duration::from_secs(60);
/// Devices of a node.
const DEVICES: usize = 3;
/// The sender of rows of the day before. It takes part where late windows are restated.
pub const PAST: usize = 4;
/// How far behind it is, microseconds: in no file of which the newest row is of today, so that all its files are due to be merged.
const BEHIND: i64 = 30 * 3_600_000_000;

/// The wall clock, microseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "a sender has a clock of its own")]
pub fn now_micros() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// One sender.
pub struct Sender {
    number: usize,
    client: reqwest::Client,
    url: String,
    ledger: Arc<Ledger>,
    dice: Dice,
    /// No new bodies from now on.
    done: Arc<AtomicBool>,
    bodies: u64,
    /// The last time and counter of its devices.
    last: [(i64, f64); DEVICES],
    held: VecDeque<(Instant, Vec<Row>)>,
}

/// What an answer says.
enum Answer {
    Acknowledged,
    Unknown,
}

impl Sender {
    /// The sender of site `number`, to the door at `http`.
    pub fn new(number: usize, http: &str, ledger: Arc<Ledger>, seed: u64, done: Arc<AtomicBool>) -> Result<Sender> {
        Ok(Sender {
            number,
            client: reqwest::Client::builder().timeout(ANSWER).build()?,
            url: format!("http://{http}/v1/ndjson"),
            ledger,
            dice: Dice::new(seed, 100 + number as u64),
            done,
            bodies: 0,
            last: [(0, 0.0); DEVICES],
            held: VecDeque::new(),
        })
    }

    /// Sends until told that it is done, then what is still held back, and the row that closes the windows of its node.
    ///
    /// # Errors
    /// If a body is refused, or the last ones are not acknowledged within a minute.
    pub async fn run(mut self) -> Result<Sender> {
        while !self.done.load(Ordering::Relaxed) {
            let rows = self.rows();
            let is_late = self.number % 2 == 1 && self.dice.chance(20);
            if is_late && self.bodies > 2 {
                let wait = self.dice.millis(3_500, 6_000);
                self.held.push_back((Instant::now() + wait, rows));
            } else {
                self.deliver(rows).await?;
            }
            while self.held.front().is_some_and(|(due, _)| *due <= Instant::now()) {
                if let Some((_, rows)) = self.held.pop_front() {
                    self.deliver(rows).await?;
                }
            }
            tokio::time::sleep(self.dice.millis(20, 120)).await;
        }
        while let Some((_, rows)) = self.held.pop_front() {
            self.deliver(rows).await?;
        }
        Ok(self)
    }

    /// Sends one row of time `at`; a lateness after the end of a window it closes that one.
    pub async fn close(&mut self, at: i64) -> Result<()> {
        self.bodies += 1;
        let row = self.row(0, at, 0);
        let body = self.ledger.sent(vec![row.clone()])?;
        self.until_acknowledged(body, &text(&[row]), None).await
    }

    /// Whether its node moves the time of its partition.
    pub fn is_live(&self) -> bool {
        self.number != PAST
    }

    /// The newest time it gave to a row.
    pub fn newest(&self) -> i64 {
        self.last.iter().map(|(ts, _)| *ts).max().unwrap_or_default()
    }

    async fn deliver(&mut self, rows: Vec<Row>) -> Result<()> {
        let text = text(&rows);
        let body = self.ledger.sent(rows)?;
        let patience = self.dice.chance(12).then(|| self.dice.between(1, 3));
        self.until_acknowledged(body, &text, patience).await?;
        if self.dice.chance(10) {
            // Whatever the answer, the rows are there already.
            self.push(&text).await?;
        }
        Ok(())
    }

    /// The same bytes until they are acknowledged, or, where a sender has no more patience than that, so many times.
    async fn until_acknowledged(&mut self, body: Body, text: &str, patience: Option<u64>) -> Result<()> {
        let mut tries = 0;
        let mut done_at = None;
        loop {
            if let Answer::Acknowledged = self.push(text).await? {
                return self.ledger.acknowledged(body);
            }
            tries += 1;
            if patience.is_some_and(|most| tries >= most) {
                return Ok(());
            }
            if self.done.load(Ordering::Relaxed) && done_at.get_or_insert_with(Instant::now).elapsed() > LAST {
                bail!("no acknowledgement within {LAST:?} of the last kill");
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn push(&self, text: &str) -> Result<Answer> {
        let request = self.client.post(&self.url).header("content-type", "application/x-ndjson").body(text.to_owned());
        let Ok(answer) = request.send().await else { return Ok(Answer::Unknown) };
        let status = answer.status().as_u16();
        match status {
            200 => Ok(Answer::Acknowledged),
            429 | 500.. => Ok(Answer::Unknown),
            _ => bail!("a door refused a good body with {status}: {}", answer.text().await.unwrap_or_default()),
        }
    }

    fn rows(&mut self) -> Vec<Row> {
        self.bodies += 1;
        let count = self.dice.between(1, 8);
        let behind = if self.number == PAST { BEHIND } else { 0 };
        (0..count).map(|row| self.row(row, now_micros() - behind, row as usize % DEVICES)).collect()
    }

    /// Row `number` of the body at hand, of a device, not before `at`.
    fn row(&mut self, number: u64, at: i64, device: usize) -> Row {
        let (ts, energy) = &mut self.last[device];
        *ts = at.max(*ts + 1);
        // Eighths: sums of them are exact, so that a wrong one is wrong by more than rounding.
        *energy += self.dice.between(1, 800) as f64 / 8.0;
        Row {
            id: format!("{}-{}-{number}", self.number, self.bodies),
            site: site::site(self.number),
            node: site::node(self.number),
            device: format!("{}/{device}", site::node(self.number)),
            ts: *ts,
            utilization: self.dice.between(0, 1_000) as f64 / 1_000.0,
            power: self.dice.between(0, 4_000) as f64 / 8.0,
            energy: *energy,
            integer: self.dice.between(0, 1_000_000) as i64,
        }
    }
}

fn text(rows: &[Row]) -> String {
    rows.iter().map(|row| row.line() + "\n").collect()
}
