//! Runs a program that prints, within a deadline and a limit of output.
//!
//! The program runs in a process group of its own, which is killed as a whole when it takes too long or prints too much. Nothing
//! here waits without a bound.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use super::worker::SourceError;

/// Most bytes a program may print. `nvidia-smi -q -x` prints some 46 KB a device.
pub(crate) const OUTPUT_MAX: u64 = 8 * 1024 * 1024;

/// How long a killed program may take to be gone before it is left to itself.
const GONE_WITHIN: Duration = Duration::from_secs(1);

/// What a program printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Printed {
    /// Its standard output.
    pub(crate) text: String,
    /// Its exit status, if it ended by itself.
    pub(crate) code: Option<i32>,
}

/// Runs `program` with `arguments`; looks for it in `PATH`.
///
/// # Errors
/// [`SourceError::Absent`] where there is no such program; [`SourceError::Failed`] where it cannot be started, takes longer
/// than `deadline`, prints more than [`OUTPUT_MAX`] or something that is no UTF-8.
pub(crate) fn run(program: &str, arguments: &[&str], deadline: Duration) -> Result<Printed, SourceError> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.process_group(0).spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => SourceError::Absent(format!("there is no program `{program}`")),
        _ => SourceError::Failed(format!("cannot start `{program}`: {error}")),
    })?;
    let printed = listen(&mut child, program, deadline);
    let code = end(&mut child, printed.is_err());
    Ok(Printed { text: printed?, code })
}

/// All it prints. The thread that reads ends with the program's output; should a descendant in another process group hold it
/// open, that thread stays until it lets go, and holds [`OUTPUT_MAX`] bytes at most.
fn listen(child: &mut Child, program: &str, deadline: Duration) -> Result<String, SourceError> {
    let failed = |why: String| SourceError::Failed(format!("`{program}` {why}"));
    let output = child.stdout.take().ok_or_else(|| failed("has no output".to_owned()))?;
    let (done, heard) = sync_channel(1);
    let read = move || {
        let mut bytes = Vec::new();
        let outcome = output.take(OUTPUT_MAX + 1).read_to_end(&mut bytes).map(|_| bytes);
        let _ = done.send(outcome);
    };
    let thread = std::thread::Builder::new().name("airan-listen".to_owned()).spawn(read);
    thread.map_err(|error| failed(format!("cannot be listened to: {error}")))?;
    let bytes = heard.recv_timeout(deadline).map_err(|_| failed(format!("did not end within {deadline:?}: killed")))?;
    let bytes = bytes.map_err(|error| failed(format!("cannot be listened to: {error}")))?;
    if bytes.len() as u64 > OUTPUT_MAX {
        return Err(failed(format!("printed more than {OUTPUT_MAX} bytes: killed")));
    }
    String::from_utf8(bytes).map_err(|_| failed("printed something that is no UTF-8".to_owned()))
}

/// Waits for the end of a program that has closed its output, or kills it and what it started.
fn end(child: &mut Child, kill: bool) -> Option<i32> {
    let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    let kill_group =
        |_: ()| group.map(|group| rustix::process::kill_process_group(group, rustix::process::Signal::KILL));
    if kill {
        kill_group(());
    }
    for end in [Instant::now() + GONE_WITHIN, Instant::now() + 2 * GONE_WITHIN] {
        while Instant::now() < end {
            if let Ok(Some(status)) = child.try_wait() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        kill_group(());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn shell(script: &str, deadline: Duration) -> Result<Printed, SourceError> {
        run("sh", &["-c", script], deadline)
    }

    #[test]
    fn output_and_status_come_back() {
        let printed = shell("echo hello; echo hidden >&2; exit 9", SOON).unwrap();
        assert_eq!((printed.text.as_str(), printed.code), ("hello\n", Some(9)));
        assert!(matches!(run("no-such-program-here", &[], SOON), Err(SourceError::Absent(_))));
    }

    /// Scenario: a program that hangs, with a child that holds its output open; one that prints 100 MB; one that prints bytes.
    /// Guarantees: each ends in time with an error that says why, and nothing it started in its group is left.
    #[test]
    fn programs_that_misbehave_are_killed() {
        let folder = tempfile::tempdir().unwrap();
        let pids = folder.path().join("pids");
        let hang = format!("sleep 600 & echo $! $$ > {}; wait", pids.display());
        let begin = Instant::now();
        let error = shell(&hang, Duration::from_millis(500)).unwrap_err().to_string();
        assert!(error.contains("did not end within 500ms"), "{error}");
        let error = shell("head -c 100000000 /dev/zero", SOON).unwrap_err().to_string();
        assert!(error.contains("more than 8388608 bytes"), "{error}");
        let error = shell("printf '\\377\\376'", SOON).unwrap_err().to_string();
        assert!(error.contains("no UTF-8"), "{error}");
        assert!(begin.elapsed() < SOON);
        for pid in std::fs::read_to_string(&pids).unwrap().split_whitespace() {
            let end = Instant::now() + SOON;
            let alive = || {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                !stat.is_empty() && !stat.contains(") Z ")
            };
            while alive() {
                assert!(Instant::now() < end, "{pid} is alive");
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}
