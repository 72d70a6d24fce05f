//! What a test's own thread says in its log.

use std::io::Write;
use std::sync::{Arc, Mutex};

use tracing::Dispatch;
use tracing::subscriber::{DefaultGuard, NoSubscriber, set_default};

/// The log of the thread that made it, of level info and above, until it is dropped.
pub(crate) struct Told {
    written: Written,
    _here: DefaultGuard,
    // While there is but one subscriber, a line is on or off by the thread that first comes past it: here that of any test.
    _another: Dispatch,
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Told {
    /// For a test that has one thread.
    pub(crate) fn here() -> Told {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        let another = Dispatch::new(NoSubscriber::new());
        Told { written, _here: set_default(subscriber), _another: another }
    }

    /// So far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.written.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
