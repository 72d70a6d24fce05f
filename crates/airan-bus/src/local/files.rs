//! The small files of a local log's folder: the lock, what it was made for, and how far a partition was processed.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::OpenError;

/// First line of an `about` file.
const KIND: &str = "airan local log";
/// Format of the folder this release makes.
const VERSION: &str = "1";

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> OpenError + 'a {
    move |source| OpenError::Io { doing, path: path.to_owned(), source }
}

/// Keeps other processes out of a folder while it lives. The kernel lets it go when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Makes the folder where there is none, and takes its lock.
    pub fn take(folder: &Path) -> Result<Lock, OpenError> {
        airan_log::create_folder(folder).map_err(failed("create", folder))?;
        let path = folder.join("lock");
        let file =
            File::options().create(true).truncate(false).write(true).open(&path).map_err(failed("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: folder.to_owned() }),
            Err(TryLockError::Error(error)) => Err(failed("lock", &path)(error)),
        }
    }
}

/// What a folder was made for: fixed when it is made (B5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct About {
    pub topic: String,
    pub partitions: u16,
}

impl About {
    /// Reads what the folder was made for and holds the settings against it; or makes it so.
    pub fn open(folder: &Path, topic: &str, partitions: u16) -> Result<About, OpenError> {
        let path = folder.join("about");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return About::make(folder, &path, topic, partitions);
            }
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let about = About::parse(&text).map_err(|reason| OpenError::Damaged { path, reason })?;
        if about.topic != topic {
            let made_for = &about.topic;
            return Err(OpenError::Setting(format!(
                "bus.topic is `{topic}`, the local log in {} was made for `{made_for}`: set it back, or give bus.path a new \
                 folder",
                folder.display()
            )));
        }
        if partitions != 0 && partitions != about.partitions {
            return Err(OpenError::PartitionsChanged {
                topic: about.topic,
                found: about.partitions.into(),
                wanted: partitions.into(),
                also: " and a new bus.path",
            });
        }
        Ok(about)
    }

    /// What the folder was made for, without holding anything against it.
    pub fn read(folder: &Path) -> Result<About, OpenError> {
        let path = folder.join("about");
        let text = std::fs::read_to_string(&path).map_err(failed("read", &path))?;
        About::parse(&text).map_err(|reason| OpenError::Damaged { path, reason })
    }

    fn make(folder: &Path, path: &Path, topic: &str, partitions: u16) -> Result<About, OpenError> {
        if folder.join("partition-0000").exists() {
            let reason = "it holds partitions, and no `about` file that tells how many".to_owned();
            return Err(OpenError::Damaged { path: folder.to_owned(), reason });
        }
        let cores =
            || std::thread::available_parallelism().map_or(1, |cores| cores.get().try_into().unwrap_or(u16::MAX));
        let about = About { topic: topic.to_owned(), partitions: if partitions == 0 { cores() } else { partitions } };
        let About { topic, partitions } = &about;
        let text = format!("{KIND}\nversion {VERSION}\ntopic {topic}\npartitions {partitions}\n");
        replace(path, &text).map_err(failed("write", path))?;
        Ok(about)
    }

    fn parse(text: &str) -> Result<About, String> {
        let mut lines = text.lines();
        if lines.next() != Some(KIND) {
            return Err(format!("its first line is not `{KIND}`"));
        }
        let (mut version, mut topic, mut partitions) = (None, None, None);
        for (name, value) in lines.filter_map(|line| line.split_once(' ')) {
            match name {
                "version" => version = Some(value),
                "topic" => topic = Some(value.to_owned()),
                "partitions" => partitions = value.parse().ok().filter(|count| *count > 0),
                _ => {}
            }
        }
        match (version, topic, partitions) {
            (Some(VERSION), Some(topic), Some(partitions)) => Ok(About { topic, partitions }),
            (Some(version), ..) if version != VERSION => Err(format!(
                "it is of version {version}, and this release reads version {VERSION}: use the release that wrote it, or give \
                 bus.path a new folder"
            )),
            _ => Err("topic or partitions are missing".to_owned()),
        }
    }
}

/// How far a partition was processed, on disk, so that retention goes on after a restart.
#[derive(Debug)]
pub(super) struct Committed {
    path: PathBuf,
}

impl Committed {
    pub fn of(folder: &Path) -> Committed {
        Committed { path: folder.join("committed") }
    }

    /// The offset before which everything was processed; 0 where that is not known.
    pub fn read(&self) -> u64 {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return 0,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "processed offset cannot be read: everything is kept");
                return 0;
            }
        };
        text.trim().parse().unwrap_or_else(|_| {
            tracing::warn!(path = %self.path.display(), "processed offset is damaged: everything is kept");
            0
        })
    }

    pub fn write(&self, offset: u64) -> io::Result<()> {
        replace(&self.path, &format!("{offset}\n"))
    }
}

/// Replaces a small file: after a crash it is the old or the new one, whole. Durable when this returns.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
