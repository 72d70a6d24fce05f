//! What a test does to a Kafka broker from the outside: a wire that can be cut, and records that are deleted.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a read waits before the wire is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A wire to a broker that can be cut: connections stay open and carry nothing, as when a switch on the way goes dark. What was
/// on the way comes through when it is mended. Its port is free again when it is dropped.
pub struct Wire {
    port: u16,
    is_cut: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl Wire {
    /// Listens on `port` of this machine and leads to `target`.
    pub fn new(port: u16, target: u16) -> Wire {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the wire's port is free");
        let is_cut = Arc::<AtomicBool>::default();
        let is_over = Arc::<AtomicBool>::default();
        let (cut, over) = (Arc::clone(&is_cut), Arc::clone(&is_over));
        let listening = std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                while cut.load(Ordering::Relaxed) {
                    std::thread::sleep(LOOK_EVERY);
                }
                // While the broker is down its clients are turned away.
                let Ok(broker) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                let ends = [(&client, &broker), (&broker, &client)]
                    .map(|(from, to)| (from.try_clone().expect("a socket"), to.try_clone().expect("a socket")));
                for (from, to) in ends {
                    let cut = Arc::clone(&cut);
                    std::thread::spawn(move || carry(from, to, &cut));
                }
            }
        });
        Wire { port, is_cut, is_over, listening: Some(listening) }
    }

    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
    }

    pub fn mend(&self) {
        self.is_cut.store(false, Ordering::Relaxed);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.mend();
        // Wakes the listener, which then sees that it is over; what is connected goes on until its ends close.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.listening.take().map(JoinHandle::join);
    }
}

/// Carries bytes one way until either end closes.
fn carry(mut from: TcpStream, mut to: TcpStream, is_cut: &AtomicBool) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer);
        while is_cut.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK_EVERY);
        }
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
pub fn delete_records(broker: &str, topic: &str, partition: i32, before: i64) {
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
    let mut stream = TcpStream::connect(broker).expect("the broker listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream.write_all(&(request.len() as i32).to_be_bytes()).expect("the broker reads");
    stream.write_all(&request).expect("the broker reads");
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("the broker answers");
    let mut answer = vec![0; i32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).expect("the broker answers");
    // The error is the last number but for nothing: correlation, throttle, [topic, [partition, low watermark, error]].
    let error = i16::from_be_bytes(answer[answer.len() - 2..].try_into().expect("two bytes"));
    assert_eq!(error, 0, "the broker deletes records of {topic}/{partition} before {before}: {answer:?}");
}
