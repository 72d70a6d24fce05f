//! How far a long command is, on stderr and for people only: where stderr is no terminal nothing is drawn, and lines come as they
//! always did.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A command that is done within this shows nothing.
const SOON: Duration = Duration::from_secs(2);

/// How often it is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(200);

/// A bar, or a line with the time gone where nobody knows how much there is to do. Gone from the screen when dropped.
pub struct Progress(ProgressBar);

impl Progress {
    /// Of `total` parts, whatever they are.
    pub fn of(what: &'static str, total: u64) -> Progress {
        let style = "{msg} {wide_bar} {percent} %  {elapsed_precise}, {eta_precise} left";
        Progress(drawn(ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()), style, what))
    }

    /// Of work whose size nobody knows.
    pub fn running(what: &'static str) -> Progress {
        let style = "{spinner} {msg} {elapsed_precise}";
        Progress(drawn(ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()), style, what))
    }

    /// How many parts are done.
    pub fn at(&self, done: u64) {
        self.0.set_position(done);
    }

    /// So many parts more are done.
    pub fn add(&self, done: u64) {
        self.0.inc(done);
    }

    /// Writes a line to stderr, above the bar where there is one.
    pub fn say(&self, line: &str) {
        self.0.suspend(|| eprintln!("{line}"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn drawn(bar: ProgressBar, style: &str, what: &'static str) -> ProgressBar {
    // A template that indicatif does not understand would be a mistake of ours: the default bar is drawn then.
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar.enable_steady_tick(DRAW_EVERY);
    bar
}

/// Does some work, and shows that it goes on if it takes longer than two seconds.
pub async fn during<T>(what: &'static str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    if let Ok(done) = tokio::time::timeout(SOON, &mut work).await {
        return done;
    }
    let _running = Progress::running(what);
    work.await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn styles_are_understood() {
        for style in
            ["{msg} {wide_bar} {percent} %  {elapsed_precise}, {eta_precise} left", "{spinner} {msg} {elapsed_precise}"]
        {
            assert!(ProgressStyle::with_template(style).is_ok(), "{style}");
        }
    }

    /// Scenario: work that is done at once and work that takes longer, in a test, where stderr is no terminal or is captured.
    #[tokio::test(start_paused = true)]
    async fn work_is_done_with_and_without_a_bar() {
        assert_eq!(during("nothing", async { 1 }).await, 1);
        let long = async {
            tokio::time::sleep(3 * SOON).await;
            2
        };
        assert_eq!(during("waiting", long).await, 2);
        let bar = Progress::of("parts", 10);
        bar.add(4);
        assert_eq!(bar.0.position(), 4);
        bar.at(9);
        assert_eq!(bar.0.position(), 9);
    }
}
