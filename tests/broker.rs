//! What a test does to a Kafka broker from the outside: a wire that can be cut, and records that are deleted. Included by path into the
//! tests that need it.

use std::io::{Error, Read, Result, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a read waits before the wire is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a connection to the broker may take, for others wait behind it.
const CONNECTED: Duration = Duration::from_secs(2);

/// A wire to a broker that can be cut: connections stay open and carry nothing, as when a switch on the way goes dark. What was
/// on the way comes through when it is mended. Its port is free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Wire {
    port: u16,
    state: Arc<State>,
    listening: Option<JoinHandle<()>>,
}

/// What becomes of a client that comes while the wire is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Newcomer {
    /// Its connection stands and is as mute as the others.
    Waits,
    /// Its connection is closed at once.
    IsTurnedAway,
}

#[derive(Debug, Default)]
struct State {
    is_cut: AtomicBool,
    turns_away: AtomicBool,
    is_over: AtomicBool,
}

impl State {
    fn wait_while_cut(&self) {
        while self.is_cut.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Wire {
    /// Of `TARGET:PORT`, as deploy/kafka/kafka.sh takes its wires: listens on `PORT` of this machine, which the broker's listener on
    /// `TARGET` tells its clients to come to, and leads there.
    ///
    /// # Errors
    /// If these are not two ports, or the second is taken.
    pub(crate) fn of(ports: &str) -> Result<Wire> {
        let number = |text: &str| text.parse::<u16>().ok();
        let (target, port) = ports
            .split_once(':')
            .and_then(|(target, port)| Some((number(target)?, number(port)?)))
            .ok_or_else(|| Error::other(format!("a wire is TARGET:PORT, not `{ports}`")))?;
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        let state = Arc::<State>::default();
        let of_listener = Arc::clone(&state);
        let listening = std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if of_listener.is_over.load(Ordering::Relaxed) {
                    return;
                }
                if of_listener.is_cut.load(Ordering::Relaxed) && of_listener.turns_away.load(Ordering::Relaxed) {
                    continue;
                }
                of_listener.wait_while_cut();
                // While the broker is down its clients are turned away.
                let Ok(broker) = TcpStream::connect_timeout(&([127, 0, 0, 1], target).into(), CONNECTED) else {
                    continue;
                };
                for (from, to) in [(&client, &broker), (&broker, &client)] {
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { break };
                    let state = Arc::clone(&of_listener);
                    std::thread::spawn(move || carry(from, to, &state));
                }
            }
        });
        Ok(Wire { port, state, listening: Some(listening) })
    }

    /// Where clients come to, as `host:port`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn cut(&self, newcomer: Newcomer) {
        self.state.turns_away.store(newcomer == Newcomer::IsTurnedAway, Ordering::Relaxed);
        self.state.is_cut.store(true, Ordering::Relaxed);
    }

    pub(crate) fn mend(&self) {
        self.state.is_cut.store(false, Ordering::Relaxed);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::Relaxed);
        self.mend();
        // Wakes the listener, which then sees that it is over; what is connected goes on until its ends close.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.listening.take().map(JoinHandle::join);
    }
}

/// Carries bytes one way until either end closes.
fn carry(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer);
        state.wait_while_cut();
        match read {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// Deletes the records of a partition before an offset, with Kafka's own request (DeleteRecords, version 1), so that no client
/// library is needed here.
///
/// # Errors
/// If `broker` cannot be reached, does not answer within 20 s, or refuses.
pub(crate) fn delete_records(broker: &str, topic: &str, partition: i32, before: i64) -> Result<()> {
    let text = |text: &str| [&(text.len() as i16).to_be_bytes()[..], text.as_bytes()].concat();
    let request = [
        // Key, version, correlation, client.
        &21i16.to_be_bytes()[..],
        &1i16.to_be_bytes(),
        &7i32.to_be_bytes(),
        &text("airan-test"),
        // One topic, one partition, timeout.
        &1i32.to_be_bytes(),
        &text(topic),
        &1i32.to_be_bytes(),
        &partition.to_be_bytes(),
        &before.to_be_bytes(),
        &10_000i32.to_be_bytes(),
    ]
    .concat();
    let mut stream = TcpStream::connect(broker)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(&(request.len() as i32).to_be_bytes())?;
    stream.write_all(&request)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; i32::from_be_bytes(length).max(0) as usize];
    stream.read_exact(&mut answer)?;
    // The error is the last number but for nothing: correlation, throttle, [topic, [partition, low watermark, error]].
    match answer.last_chunk() {
        Some(code) if i16::from_be_bytes(*code) == 0 => Ok(()),
        _ => Err(Error::other(format!(
            "the broker does not delete records of {topic}/{partition} before {before}: it answers {answer:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: clients of a server that gives back what it gets, through a wire that is cut and mended twice.
    /// Guarantees: while it is cut nothing comes through, whether a client was there before or comes meanwhile, and none of it is lost for
    /// one that waits; one that is turned away hears so at once.
    #[test]
    fn a_wire_that_is_cut_is_mute_and_loses_nothing() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for client in server.incoming().map_while(Result::ok) {
                let (mut from, mut to) = (client.try_clone().unwrap(), client);
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        });
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let wire = Wire::of(&format!("{target}:{port}")).unwrap();
        let client = || {
            let client = TcpStream::connect(wire.address()).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            client
        };
        let echo = |client: &mut TcpStream| {
            let mut word = [0; 4];
            client.read_exact(&mut word).map(|()| word)
        };
        let mut first = client();
        first.write_all(b"one,").unwrap();
        assert_eq!(&echo(&mut first).unwrap(), b"one,");

        wire.cut(Newcomer::Waits);
        let mut second = client();
        for client in [&mut first, &mut second] {
            client.write_all(b"two,").unwrap();
            client.set_read_timeout(Some(6 * LOOK_EVERY)).unwrap();
            assert!(echo(client).is_err(), "nothing comes through");
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        }
        wire.mend();
        for client in [&mut first, &mut second] {
            assert_eq!(&echo(client).unwrap(), b"two,");
        }

        wire.cut(Newcomer::IsTurnedAway);
        assert!(matches!(client().read(&mut [0]), Ok(0)), "it is turned away");
        wire.mend();
        let mut third = client();
        third.write_all(b"end.").unwrap();
        assert_eq!(&echo(&mut third).unwrap(), b"end.");
    }

    /// Guarantees: what is no pair of ports is refused with what it should be, and a port that is taken is.
    #[test]
    fn a_wire_needs_two_ports() {
        for ports in ["", "1", "1:", "a:b", "1:70000"] {
            assert!(Wire::of(ports).unwrap_err().to_string().contains("TARGET:PORT"), "{ports}");
        }
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(Wire::of(&format!("1:{}", taken.local_addr().unwrap().port())).is_err());
    }
}
