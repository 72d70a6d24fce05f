//! Named points between the steps of a protocol, at which a test can make this process die.
//!
//! The crash harness starts a process with `AIRAN_CRASH_AT=lake.commit.record:3`: it dies when it passes that point for the
//! third time (the first, where no number is given), at once, with nothing flushed and no destructor run, like one that
//! was killed. Without the variable a point costs one atomic load. The points are listed in `crates/airan-lake/PROTOCOL.md`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names the point to die at, and the pass.
pub const VARIABLE: &str = "AIRAN_CRASH_AT";

struct Fatal {
    point: String,
    passes_left: AtomicU64,
}

/// Dies here if the environment asked for it.
pub fn point(name: &'static str) {
    // The environment of a process does not change: one look at it is enough, wherever the points are.
    static FATAL: OnceLock<Option<Fatal>> = OnceLock::new();
    let fatal = FATAL.get_or_init(|| std::env::var(VARIABLE).ok().map(|asked| parse(&asked)));
    if let Some(fatal) = fatal
        && is_due(fatal, name)
    {
        std::process::abort();
    }
}

fn parse(asked: &str) -> Fatal {
    let (point, pass) = asked.rsplit_once(':').unwrap_or((asked, "1"));
    Fatal { point: point.to_owned(), passes_left: AtomicU64::new(pass.parse().unwrap_or(1)) }
}

fn is_due(fatal: &Fatal, name: &str) -> bool {
    fatal.point == name && fatal.passes_left.fetch_sub(1, Ordering::Relaxed) == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: the environment asks for the second pass of a point.
    /// Guarantees: other points and the first pass are survived; the second is not, and none after it is due again.
    #[test]
    fn only_the_asked_pass_of_the_asked_point_is_fatal() {
        let fatal = parse("lake.commit.record:2");
        let due = ["lake.commit.files", "lake.commit.record", "lake.commit.record", "lake.commit.record"]
            .map(|name| is_due(&fatal, name));
        assert_eq!(due, [false, false, true, false]);
        assert!(is_due(&parse("log.append.synced"), "log.append.synced"));
    }
}
