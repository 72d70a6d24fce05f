use std::collections::VecDeque;
use std::sync::Mutex;

use airan_model::catalog::Catalog;
use airan_model::identity::BatchId;
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use bytes::Bytes;

use super::*;
use crate::rows::{Reading, to_rows};
use crate::settings::Settings;
use crate::stamp::Stamp;
use crate::told::Told;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A queue with a stamp before it and a sender behind it.
struct Rig {
    queue: Arc<Queue>,
    metrics: Arc<AgentMetrics>,
    stamp: Stamp,
    catalog: Catalog,
    settings: UplinkSettings,
}

impl Rig {
    fn new() -> Rig {
        let metrics = Arc::new(AgentMetrics::new().unwrap());
        let limit = Portion { rows: 10_000, bytes: usize::MAX };
        let mut settings = Settings::documented().uplink;
        settings.backoff_min = Duration::from_millis(1).into();
        settings.backoff_max = Duration::from_millis(4).into();
        Rig {
            queue: Arc::new(Queue::new(limit, Arc::clone(&metrics))),
            metrics,
            stamp: Stamp::new(BatchId(7)),
            catalog: Catalog::builtin().unwrap(),
            settings,
        }
    }

    fn push(&self, stream: &str, count: usize) {
        let rows =
            to_rows(self.catalog.stream(stream).unwrap(), "n", 0, None, &vec![Reading::default(); count]).unwrap();
        self.queue.push("x", self.stamp.stamp(rows, "procfs").unwrap());
    }

    fn sender(&self, line: Line) -> Sender {
        Sender {
            line,
            queue: Arc::clone(&self.queue),
            settings: self.settings.clone(),
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// Sends all that is queued, then stops.
    async fn drain(&self, line: Line) {
        let finish = CancellationToken::new();
        finish.cancel();
        tokio::time::timeout(PATIENCE, self.sender(line).run(finish, PATIENCE)).await.unwrap();
        self.assert_sum();
    }

    fn assert_sum(&self) {
        let collected = self.metrics.collected_rows.with_label_values(&["x"]).get();
        let dropped: u64 = Dropped::ALL.iter().map(|reason| self.metrics.dropped(*reason).get()).sum();
        let queued = self.queue.rows() as u64;
        assert_eq!(collected, self.metrics.acknowledged_rows.get() + queued + dropped);
    }
}

fn numbers(rows: &RecordBatch) -> Vec<i64> {
    rows.column_by_name("seq").unwrap().as_primitive::<Int64Type>().values().to_vec()
}

/// An in-process gateway that answers from a script, then takes everything. Keeps stream, numbers and answer of every call.
type Calls = Arc<Mutex<Vec<(String, Vec<i64>, bool)>>>;

fn scripted(answers: Vec<Result<(), UplinkError>>) -> (Line, Calls) {
    let calls = Calls::default();
    let seen = Arc::clone(&calls);
    let answers = Mutex::new(VecDeque::from(answers));
    let submit: Submit = Box::new(move |rows| {
        let answer = answers.lock().unwrap().pop_front().unwrap_or(Ok(()));
        seen.lock().unwrap().push((rows.stream.name.to_string(), numbers(&rows.rows), answer.is_ok()));
        Box::pin(async move { answer })
    });
    (Line::InProcess(submit), calls)
}

fn away() -> Result<(), UplinkError> {
    Err(retry("away", None))
}

/// Scenario: a link so slow that a request of all rows, of half and of a quarter does not arrive in time, one of an eighth does.
/// Guarantees: requests are halved until they arrive, and grow again then; no row is lost, none is sent again once it was taken.
#[tokio::test]
async fn requests_on_a_slow_link_are_made_smaller() {
    let mut rig = Rig::new();
    rig.settings.request_rows = 4_000;
    (0..4_000).for_each(|_| rig.push("host", 1));
    let lease = rig.queue.lease(Portion { rows: 4_000, bytes: usize::MAX }).unwrap();
    let bytes = lease.bytes();
    rig.queue.release(lease);
    assert!(bytes / 8 > NARROWEST, "{bytes}");
    rig.settings.request_bytes = (bytes as u64).into();
    let slow = || Err(UplinkError::Slow { reason: "timeout".to_owned() });
    let (line, calls) = scripted(vec![slow(), slow(), slow()]);
    rig.drain(line).await;
    let sizes: Vec<usize> = calls.lock().unwrap().iter().map(|call| call.1.len()).collect();
    let halves = sizes.windows(2).take(3).all(|pair| pair[1].abs_diff(pair[0] / 2) <= 1);
    assert!(sizes[0] > 1_000 && halves && sizes[4..8] == [sizes[3]; 4], "{sizes:?}");
    assert!(sizes[8..].iter().any(|size| *size > sizes[3]), "what arrives in time makes them larger again: {sizes:?}");
    let taken: Vec<i64> = calls.lock().unwrap().iter().filter(|call| call.2).flat_map(|call| call.1.clone()).collect();
    assert_eq!(taken, (0..4_000).collect::<Vec<i64>>());
}

/// Scenario: a link that is slow four times in a row, fast until requests have their full size again and beyond, then slow once more.
/// Guarantees: one warning each time, one line when it is over.
#[tokio::test]
async fn a_slow_link_is_told_once() {
    let mut rig = Rig::new();
    rig.settings.request_rows = 100;
    (0..400).for_each(|_| rig.push("host", 1));
    let lease = rig.queue.lease(Portion { rows: 100, bytes: usize::MAX }).unwrap();
    rig.settings.request_bytes = (lease.bytes() as u64).into();
    rig.queue.release(lease);
    let slow = || Err(UplinkError::Slow { reason: "timeout".to_owned() });
    let told = Told::here();
    let (line, _) = scripted(vec![slow(), slow(), slow(), slow()]);
    rig.drain(line).await;
    let warned = |text: &str| text.matches("requests take too long").count();
    let over = |text: &str| text.matches("requests of full size arrive in time again").count();
    let so_far = told.text();
    assert_eq!((warned(&so_far), over(&so_far)), (1, 1), "{so_far}");
    rig.push("host", 100);
    let (line, _) = scripted(vec![slow(), slow()]);
    rig.drain(line).await;
    assert_eq!(warned(&told.text()), 2, "{}", told.text());
}

/// Scenario: rows in pieces.
/// Guarantees: no piece is empty, all rows are in them.
#[test]
fn pieces_hold_all_rows() {
    assert_eq!(in_pieces(10, 4), [2, 4, 4]);
    assert_eq!(in_pieces(8, 4), [4, 4]);
    assert_eq!((in_pieces(3, 0), in_pieces(3, 9)), (vec![1, 1, 1], vec![3]));
}

/// Scenario: two streams; the gateway is away three times, takes some, is away again.
/// Guarantees: what it takes has every number once and in order; a retry has the numbers of the attempt before.
#[tokio::test]
async fn numbers_have_no_gap_across_retries() {
    let mut rig = Rig::new();
    rig.settings.request_rows = 5;
    for (stream, count) in [("host", 1), ("link", 3), ("host", 4), ("link", 3), ("host", 2)] {
        rig.push(stream, count);
    }
    let (line, calls) = scripted(vec![away(), away(), away(), Ok(()), Ok(()), away(), Ok(()), away()]);
    rig.drain(line).await;
    let calls = calls.lock().unwrap();
    let taken = |stream: &str| -> Vec<i64> {
        calls.iter().filter(|(name, _, ok)| name == stream && *ok).flat_map(|(_, numbers, _)| numbers.clone()).collect()
    };
    assert_eq!(taken("host"), (0..7).collect::<Vec<_>>());
    assert_eq!(taken("link"), (0..6).collect::<Vec<_>>());
    for pair in calls.windows(2).filter(|pair| !pair[0].2) {
        assert_eq!((&pair[0].0, &pair[0].1), (&pair[1].0, &pair[1].1), "a retry is the same rows");
    }
    assert_eq!(rig.metrics.acknowledged_rows.get(), 13);
    assert_eq!(rig.metrics.uplink_requests.with_label_values(&["retry"]).get(), 5);
    assert_eq!(rig.metrics.uplink_up.get(), 1);
}

#[tokio::test]
async fn refused_rows_are_dropped_and_the_rest_goes_on() {
    let rig = Rig::new();
    rig.push("host", 2);
    rig.push("link", 3);
    let (line, calls) = scripted(vec![Err(UplinkError::RefusedAll { reason: "no".into() })]);
    rig.drain(line).await;
    assert_eq!(calls.lock().unwrap().len(), 2);
    assert_eq!((rig.metrics.dropped(Dropped::Refused).get(), rig.metrics.acknowledged_rows.get()), (2, 3));
}

/// Scenario: the gateway never answers, and the agent is told to stop.
/// Guarantees: it ends after the drain time; what was not sent is counted as dropped.
#[tokio::test]
async fn what_cannot_be_sent_in_time_is_dropped_at_the_end() {
    let rig = Rig::new();
    rig.push("host", 4);
    let line = Line::InProcess(Box::new(|_| Box::pin(std::future::pending())));
    let finish = CancellationToken::new();
    finish.cancel();
    let run = rig.sender(line).run(finish, Duration::from_millis(20));
    tokio::time::timeout(PATIENCE, run).await.unwrap();
    assert_eq!(rig.metrics.dropped(Dropped::Shutdown).get(), 4);
    rig.assert_sum();
}

#[tokio::test]
async fn a_gateway_that_does_not_answer_is_asked_again() {
    let mut rig = Rig::new();
    rig.settings.timeout = Duration::from_millis(10).into();
    rig.push("host", 1);
    let asked = Mutex::new(0);
    let line = Line::InProcess(Box::new(move |_| {
        let mut asked = asked.lock().unwrap();
        *asked += 1;
        let silent = *asked <= 2;
        Box::pin(async move { if silent { std::future::pending().await } else { Ok(()) } })
    }));
    rig.drain(line).await;
    assert_eq!(rig.metrics.acknowledged_rows.get(), 1);
    assert_eq!(rig.metrics.uplink_requests.with_label_values(&["retry"]).get(), 2);
}

#[tokio::test]
async fn rows_older_than_allowed_are_given_up() {
    let mut rig = Rig::new();
    rig.settings.give_up_after = Duration::from_millis(5).into();
    rig.push("host", 3);
    let line = Line::InProcess(Box::new(|_| Box::pin(async { away() })));
    rig.drain(line).await;
    assert_eq!(rig.metrics.dropped(Dropped::Expired).get(), 3);
}

#[test]
fn waits_double_up_to_the_longest() {
    let mut rig = Rig::new();
    rig.settings.backoff_min = Duration::from_millis(500).into();
    rig.settings.backoff_max = Duration::from_secs(30).into();
    let sender = rig.sender(scripted(Vec::new()).0);
    for (failures, chance, millis) in
        [(0, 1.0, 500), (0, 0.0, 250), (1, 1.0, 1000), (5, 1.0, 16_000), (6, 1.0, 30_000), (u32::MAX, 0.0, 15_000)]
    {
        assert_eq!(sender.backoff(failures, chance), Duration::from_millis(millis), "{failures} {chance}");
    }
}

#[test]
fn a_gateway_can_ask_for_a_wait_but_not_for_any() {
    let headers = |value: &str| HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
    assert_eq!(retry_after(&headers("7")), Some(Duration::from_secs(7)));
    assert_eq!(retry_after(&headers("99999999999")), Some(RETRY_AFTER_MAX));
    assert_eq!(retry_after(&headers("Wed, 21 Oct 2015 07:28:00 GMT")), None);
    assert_eq!(retry_after(&HeaderMap::new()), None);
}

/// What the HTTP gateway of these tests has seen, and what it answers next.
#[derive(Default)]
struct Door {
    seen: Vec<(HeaderMap, Bytes)>,
    answers: VecDeque<(u16, Option<&'static str>)>,
    /// What it says; without any, what a gateway says.
    texts: VecDeque<String>,
}

const LIMITS: ipc::IpcLimits = ipc::IpcLimits { bytes: 1 << 20, rows: 10_000, columns: 200, depth: 8 };

async fn take(
    State(door): State<Arc<Mutex<Door>>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, HeaderMap, String) {
    let mut door = door.lock().unwrap();
    door.seen.push((headers, body));
    let (status, after) = door.answers.pop_front().unwrap_or((200, None));
    let headers = after.map(|after| (RETRY_AFTER, after.parse().unwrap())).into_iter().collect();
    let rows = ipc::decode(&door.seen[door.seen.len() - 1].1, &LIMITS).unwrap().num_rows();
    let text = match status {
        200 => door.texts.pop_front().unwrap_or_else(|| format!("{{\"rows\": {rows}, \"refused\": []}}\n")),
        _ => door.texts.pop_front().unwrap_or_else(|| "words".to_owned()),
    };
    (StatusCode::from_u16(status).unwrap(), headers, text)
}

fn line_to(url: &str) -> Line {
    let endpoint = Address::from(url).endpoint("/v1/arrow").unwrap();
    Line::Http { client: reqwest::Client::new(), endpoint, sender: "edge-1".into() }
}

async fn http(answers: &[(u16, Option<&'static str>)]) -> (Line, Arc<Mutex<Door>>) {
    let door = Arc::new(Mutex::new(Door { answers: answers.iter().copied().collect(), ..Door::default() }));
    let app = Router::new().route("/v1/arrow", post(take)).with_state(Arc::clone(&door));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let line = line_to(&format!("http://jo:hunter2@{}", listener.local_addr().unwrap()));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (line, door)
}

/// Scenario: over HTTP; busy, then broken, then well.
/// Guarantees: the body is an Arrow stream with batch and seq, the headers say stream and sender, retries carry the same bytes.
#[tokio::test]
async fn rows_go_over_http_as_arrow() {
    let rig = Rig::new();
    rig.push("host", 3);
    let (line, door) = http(&[(503, Some("0")), (500, None), (429, None)]).await;
    rig.drain(line).await;
    let door = door.lock().unwrap();
    assert_eq!(door.seen.len(), 4);
    for (headers, body) in &door.seen {
        assert_eq!(headers["airan-stream"], "host");
        assert_eq!(headers["airan-sender"], "edge-1");
        assert_eq!(headers["authorization"], "Basic am86aHVudGVyMg==");
        assert_eq!(headers["content-type"], "application/vnd.apache.arrow.stream");
        let rows = ipc::decode(body, &LIMITS).unwrap();
        assert_eq!(numbers(&rows), [0, 1, 2]);
        assert_eq!(rows.column_by_name("batch").unwrap().as_string::<i32>().value(0), BatchId(7).to_hex());
    }
    assert_eq!(rig.metrics.acknowledged_rows.get(), 3);
}

/// Scenario: each status that blames the rows, always or for two rows at once; and statuses that do not.
/// Guarantees: blamed rows are dropped, alone where the fault may be one row's alone; nothing else loses a row.
#[tokio::test]
async fn statuses_that_blame_the_rows_drop_them() {
    for (status, text, dropped, requests) in [
        (400, "{\"reason\": \"malformed\"}", 1, 3),
        (400, "a proxy's words", 1, 3),
        (413, "", 1, 3),
        (400, "{\"reason\": \"unknown_stream\"}", 2, 1),
        (400, "{\"reason\": \"wrong_type\"}", 2, 1),
        (415, "", 2, 1),
        (401, "", 0, 3),
        (404, "", 0, 3),
        (503, "", 0, 3),
    ] {
        let rig = Rig::new();
        rig.push("host", 2);
        let (line, door) = http(&[(status, None), (status, None)]).await;
        door.lock().unwrap().texts = [text, text].map(str::to_owned).into();
        rig.drain(line).await;
        assert_eq!(rig.metrics.dropped(Dropped::Refused).get(), dropped, "{status} {text}");
        assert_eq!(rig.metrics.acknowledged_rows.get(), 2 - dropped, "{status} {text}");
        assert_eq!(door.lock().unwrap().seen.len(), requests, "{status} {text}");
    }
}

/// Scenario: the gateway takes a request but for some of its rows; something answers 200 that is no gateway.
/// Guarantees: rows that were not taken are dropped and never counted as acknowledged; a stranger's 200 is no acknowledgement.
#[tokio::test]
async fn only_rows_that_the_gateway_says_it_holds_are_acknowledged() {
    let rig = Rig::new();
    rig.push("host", 5);
    let (line, door) = http(&[]).await;
    door.lock().unwrap().texts =
        ["<html>log in</html>", "{\"ok\": true}", "{\"rows\": 3, \"refused\": [{\"count\": 2}]}"]
            .map(str::to_owned)
            .into();
    rig.drain(line).await;
    assert_eq!(door.lock().unwrap().seen.len(), 3);
    assert_eq!((rig.metrics.acknowledged_rows.get(), rig.metrics.dropped(Dropped::Refused).get()), (3, 2));
    assert_eq!(rig.metrics.uplink_requests.with_label_values(&["retry"]).get(), 2);
}

/// An in-process gateway that judges requests by their numbers.
fn judging(judge: impl Fn(&[i64], usize) -> Result<(), UplinkError> + Send + Sync + 'static) -> (Line, Calls) {
    let calls = Calls::default();
    let seen = Arc::clone(&calls);
    let submit: Submit = Box::new(move |rows| {
        let numbers = numbers(&rows.rows);
        let mut seen = seen.lock().unwrap();
        let answer = judge(&numbers, seen.len());
        seen.push((rows.stream.name.to_string(), numbers, answer.is_ok()));
        Box::pin(async move { answer })
    });
    (Line::InProcess(submit), calls)
}

fn refused() -> UplinkError {
    UplinkError::Refused { reason: "no".into() }
}

fn taken(calls: &Calls) -> Vec<i64> {
    calls.lock().unwrap().iter().filter(|(.., ok)| *ok).flat_map(|(_, numbers, _)| numbers.clone()).collect()
}

/// Scenario: two rows of a hundred, pushed in several entries, are refused wherever they are.
/// Guarantees: they alone are lost; every other row is taken once, in order, with the number it had.
#[tokio::test]
async fn a_bad_row_costs_only_itself() {
    let rig = Rig::new();
    for count in [30, 1, 60, 9] {
        rig.push("host", count);
    }
    let (line, calls) =
        judging(|numbers, _| if numbers.contains(&0) || numbers.contains(&71) { Err(refused()) } else { Ok(()) });
    rig.drain(line).await;
    assert_eq!(taken(&calls), (1..71).chain(72..100).collect::<Vec<_>>());
    assert_eq!((rig.metrics.acknowledged_rows.get(), rig.metrics.dropped(Dropped::Refused).get()), (98, 2));
    assert!(calls.lock().unwrap().len() < 40, "{} requests", calls.lock().unwrap().len());
}

/// Scenario: the gateway takes fewer rows at once than the agent was told to send, and is away for a while in between.
/// Guarantees: no row is lost or taken twice, and the agent learns the limit instead of meeting it each time.
#[tokio::test]
async fn a_limit_of_the_gateway_costs_no_row() {
    let rig = Rig::new();
    for _ in 0..100 {
        rig.push("host", 4);
    }
    let (line, calls) = judging(|numbers, call| match (numbers.len(), call) {
        (_, 3..=5) => away(),
        (17.., _) => Err(refused()),
        _ => Ok(()),
    });
    rig.drain(line).await;
    assert_eq!(taken(&calls), (0..400).collect::<Vec<_>>());
    assert_eq!(rig.metrics.acknowledged_rows.get(), 400);

    let rig = Rig { settings: UplinkSettings { request_rows: 40, ..rig.settings.clone() }, ..Rig::new() };
    for _ in 0..100 {
        rig.push("host", 4);
    }
    let (line, calls) = judging(|numbers, _| if numbers.len() > 16 { Err(refused()) } else { Ok(()) });
    rig.drain(line).await;
    assert_eq!(taken(&calls), (0..400).collect::<Vec<_>>());
    let refusals = calls.lock().unwrap().iter().filter(|(.., ok)| !ok).count();
    assert!(refusals <= 3, "{refusals} refusals");
}

/// Scenario: the gateway refuses every row, of a request of thousands.
/// Guarantees: the agent gives up on it after a bounded number of requests, and counts all as lost.
#[tokio::test]
async fn rows_that_are_all_refused_cost_a_bounded_number_of_requests() {
    let rig = Rig::new();
    rig.push("host", 5_000);
    let (line, calls) = judging(|_, _| Err(refused()));
    rig.drain(line).await;
    assert_eq!((rig.metrics.dropped(Dropped::Refused).get(), rig.queue.rows()), (5_000, 0));
    assert!(calls.lock().unwrap().len() <= REFUSALS_MAX + 1, "{} requests", calls.lock().unwrap().len());
}

/// Scenario: nobody listens at first.
#[tokio::test]
async fn a_gateway_that_is_not_there_yet_is_waited_for() {
    let rig = Rig::new();
    rig.push("host", 2);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let line = line_to(&format!("http://{address}"));
    let finish = CancellationToken::new();
    let running = tokio::spawn(rig.sender(line).run(finish.clone(), PATIENCE));
    let deadline = Instant::now() + PATIENCE;
    while rig.metrics.uplink_requests.with_label_values(&["retry"]).get() == 0 {
        assert!(Instant::now() < deadline, "no attempt was made");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!((rig.metrics.uplink_up.get(), rig.queue.rows()), (0, 2));
    let door = Arc::new(Mutex::new(Door::default()));
    let app = Router::new().route("/v1/arrow", post(take)).with_state(Arc::clone(&door));
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    finish.cancel();
    tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap();
    assert_eq!((rig.metrics.acknowledged_rows.get(), rig.metrics.uplink_up.get()), (2, 1));
    rig.assert_sum();
}
