//! The agent's own collectors: this host and its network interfaces, from the kernel's files.
//!
//! They read files of the kernel, which never block for long, but still off the runtime's threads.

#[cfg(target_os = "linux")]
mod host;
#[cfg(target_os = "linux")]
mod link;

use std::path::PathBuf;

use airan_model::time::Micros;

use crate::rows::Reading;

/// Where the kernel's files are, and which interfaces do not matter.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    pub(crate) proc_path: PathBuf,
    pub(crate) sys_path: PathBuf,
    pub(crate) links_ignored: Vec<String>,
}

/// What one run of a collector gave.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Collection {
    /// When the counters began: when the host started.
    pub(crate) start_ts: Option<Micros>,
    /// The rows.
    pub(crate) readings: Vec<Reading>,
}

/// Why nothing could be collected. The next run may succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CollectError {
    /// A file of the kernel cannot be read.
    #[cfg(target_os = "linux")]
    #[error("cannot read the kernel's files")]
    Proc(#[from] procfs::ProcError),
    /// Not Linux.
    #[cfg(not(target_os = "linux"))]
    #[error("this system has no procfs: only Linux hosts can be collected")]
    NoProcfs,
}

/// Which collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Collector {
    /// CPU, memory, disks, file systems.
    Host,
    /// Network interfaces.
    Link,
}

impl Collector {
    /// The stream it fills, also its name.
    pub(crate) fn stream(self) -> &'static str {
        match self {
            Collector::Host => "host",
            Collector::Link => "link",
        }
    }

    /// Reads the kernel's files.
    #[cfg(target_os = "linux")]
    pub(crate) fn collect(self, kernel: &Kernel) -> Result<Collection, CollectError> {
        match self {
            Collector::Host => host::collect(kernel),
            Collector::Link => link::collect(kernel),
        }
    }

    /// Reads the kernel's files.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn collect(self, _kernel: &Kernel) -> Result<Collection, CollectError> {
        Err(CollectError::NoProcfs)
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use crate::rows::to_rows;
    use airan_model::catalog::Catalog;
    use airan_model::schema;
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::Float64Type;

    pub(super) fn this_machine() -> Kernel {
        Kernel { proc_path: "/proc".into(), sys_path: "/sys".into(), links_ignored: Vec::new() }
    }

    /// Scenario: this machine's own host.
    /// Guarantees: one row of the host stream, that conforms, with what every Linux host knows.
    #[test]
    fn this_machines_host_is_collected() {
        let catalog = Catalog::builtin().unwrap();
        let stream = catalog.stream("host").unwrap();
        let collection = Collector::Host.collect(&this_machine()).unwrap();
        let known = |name: &str| stream.place_of(name).is_some();
        assert!(collection.readings[0].numbers.iter().all(|(name, _)| known(name)), "{:?}", collection.readings);
        assert!(collection.readings[0].texts.iter().all(|(name, _)| known(name)));
        let rows = to_rows(stream, "edge-1", 1_795_514_400_000_000, collection.start_ts, &collection.readings).unwrap();
        let full = stream.conform(&rows.rows).unwrap();
        assert_eq!((full.num_rows(), full.num_columns()), (1, stream.schema().fields().len()));
        let number = |name: &str| full.column_by_name(name).unwrap().as_primitive::<Float64Type>().value(0);
        for name in
            ["cpu_user_seconds", "cpu_idle_seconds", "cpus", "memory_total_bytes", "processes", "uptime_seconds"]
        {
            assert!(number(name) > 0.0, "{name}");
        }
        assert!(number("memory_available_bytes") <= number("memory_total_bytes"));
        assert!(number("root_filesystem_size_bytes") >= number("root_filesystem_available_bytes"));
        assert!(full.column_by_name(schema::START_TS).unwrap().is_valid(0));
    }

    #[test]
    fn this_machines_links_are_collected_but_for_the_ignored() {
        let catalog = Catalog::builtin().unwrap();
        let stream = catalog.stream("link").unwrap();
        let collection = Collector::Link.collect(&this_machine()).unwrap();
        let names = |c: &Collection| c.readings.iter().map(|r| r.entity[0].1.clone()).collect::<Vec<_>>();
        assert!(names(&collection).contains(&"lo".to_owned()), "{:?}", names(&collection));
        let rows = to_rows(stream, "edge-1", 0, None, &collection.readings).unwrap();
        stream.conform(&rows.rows).unwrap();
        assert!(rows.rows.column_by_name("rx_bytes").unwrap().null_count() == 0);
        let without = Collector::Link.collect(&Kernel { links_ignored: vec!["l*".into()], ..this_machine() }).unwrap();
        assert!(!names(&without).contains(&"lo".to_owned()));
    }

    #[test]
    fn a_system_without_procfs_gives_an_error_and_no_crash() {
        let nowhere = Kernel { proc_path: "/nowhere".into(), ..this_machine() };
        for collector in [Collector::Host, Collector::Link] {
            assert!(matches!(collector.collect(&nowhere), Err(CollectError::Proc(_))));
        }
    }
}
