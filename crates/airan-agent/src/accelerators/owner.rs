//! Who uses a device: from a process to the container, or else the command, it belongs to.
//!
//! Says which container, pod and program, never a user, an argument or anything of an environment.

use std::collections::BTreeMap;
use std::path::Path;

use airan_decode::accelerators::{Entry, Process};

/// Length of a container's id in a cgroup path: SHA-256 as hex, with containerd, CRI-O, Docker and Podman alike.
const CONTAINER_ID: usize = 64;

/// Length of a pod's UID.
const POD_UID: usize = 36;

/// Most of a cgroup file that is read, bytes. A path may have 4096.
const CGROUP_MAX: u64 = 64 * 1024;

/// What a process belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    /// The container's id.
    pub(crate) container: Option<String>,
    /// The Kubernetes pod's UID.
    pub(crate) pod_uid: Option<String>,
    /// The program.
    pub(crate) command: Option<String>,
}

/// Fills the owner columns of an entry: of whoever holds most of its memory. Several processes of one container are one owner;
/// among equals the first by name, so that it does not change back and forth.
pub(crate) fn fill(entry: &mut Entry, proc_path: &Path) {
    let mut held: BTreeMap<Owner, u64> = BTreeMap::new();
    for process in &entry.processes {
        let mut owner = of(process, proc_path);
        if owner.container.is_some() {
            owner.command = None;
        }
        *held.entry(owner).or_default() += process.memory_bytes.unwrap_or(0);
    }
    let most = held.values().max().copied();
    let Some((owner, _)) = held.into_iter().find(|(_, bytes)| Some(*bytes) == most) else { return };
    entry.text("owner_container_id", owner.container);
    entry.text("owner_pod_uid", owner.pod_uid);
    entry.text("owner_command", owner.command);
}

fn of(process: &Process, proc_path: &Path) -> Owner {
    let folder = proc_path.join(process.pid.to_string());
    let mut owner = cgroup(&folder.join("cgroup")).map_or_else(Owner::default, |text| from_cgroup(&text));
    let command = std::fs::read_to_string(folder.join("comm")).ok();
    owner.command = command.as_deref().and_then(program).or_else(|| process.name.as_deref().and_then(program));
    owner
}

fn cgroup(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(CGROUP_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Container and pod of a `/proc/PID/cgroup`, version 1 or 2.
pub(crate) fn from_cgroup(text: &str) -> Owner {
    let mut owner = Owner::default();
    for path in text.lines().filter_map(|line| line.splitn(3, ':').nth(2)) {
        for part in path.split('/') {
            if owner.container.is_none() {
                owner.container = container(part);
            }
            if owner.pod_uid.is_none() {
                owner.pod_uid = pod_uid(part);
            }
        }
    }
    owner
}

/// `cri-containerd-ID.scope`, `docker-ID.scope`, or `ID` alone.
fn container(part: &str) -> Option<String> {
    let id = part.strip_suffix(".scope").unwrap_or(part);
    let id = id.rsplit(['-', ':']).next()?;
    (id.len() == CONTAINER_ID && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_ascii_lowercase())
}

/// `kubepods-burstable-podUID.slice`, with `_` for `-` where systemd names it, or `podUID`.
fn pod_uid(part: &str) -> Option<String> {
    let part = part.strip_suffix(".slice").unwrap_or(part);
    let uid = part.rsplit("pod").next().filter(|uid| uid.len() < part.len())?.replace('_', "-");
    let fits = uid.len() == POD_UID
        && uid.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    fits.then_some(uid)
}

/// The program alone: no folder, no argument.
pub(crate) fn program(name: &str) -> Option<String> {
    let name = name.split_whitespace().next()?.rsplit('/').next()?;
    let name: String = name.chars().filter(|letter| !letter.is_control()).take(64).collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4e8c0f8d0b6a5f1b0c9d8e7f6a5b4c3d2e1f0a9b8c7d6e5f4a3b2c1d0e9f8a";
    const UID: &str = "0e4d1c3a-5b2f-4f6e-9a8b-7c6d5e4f3a2b";

    /// Scenario: cgroup files of version 1 and 2, of Kubernetes with systemd and without, Docker, Podman, none, and nonsense.
    #[test]
    fn containers_and_pods_are_read_from_cgroups() {
        let under = UID.replace('-', "_");
        let cases = [
            (
                format!(
                    "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice/cri-containerd-{ID}.scope\n"
                ),
                (Some(ID), Some(UID)),
            ),
            (format!("12:devices:/kubepods/besteffort/pod{UID}/{ID}\n1:name=systemd:/x\n"), (Some(ID), Some(UID))),
            (
                format!("0::/kubepods.slice/kubepods-pod{under}.slice/crio-{ID}.scope/container\n"),
                (Some(ID), Some(UID)),
            ),
            (format!("0::/system.slice/docker-{ID}.scope\n"), (Some(ID), None)),
            (format!("4:memory:/docker/{ID}\n"), (Some(ID), None)),
            (format!("0::/machine.slice/libpod-{ID}.scope\n"), (Some(ID), None)),
            (format!("0::/k8s.io:cri-containerd:{ID}\n"), (Some(ID), None)),
            ("0::/user.slice/user-1000.slice/session-2.scope\n".to_owned(), (None, None)),
            (format!("0::/podcast/pod{}/pod\n", &UID[1..]), (None, None)),
            ("garbage".to_owned(), (None, None)),
            (String::new(), (None, None)),
        ];
        for (text, (container, pod)) in cases {
            let owner = from_cgroup(&text);
            assert_eq!((owner.container.as_deref(), owner.pod_uid.as_deref()), (container, pod), "{text}");
        }
    }

    #[test]
    fn of_a_command_only_the_program_is_kept() {
        for (name, kept) in [
            ("/usr/bin/python3 serve.py --user anna", Some("python3")),
            ("vllm\n", Some("vllm")),
            ("  ", None),
            ("/", None),
            ("a\u{7}b", Some("ab")),
        ] {
            assert_eq!(program(name).as_deref(), kept, "{name:?}");
        }
    }

    /// Scenario: one program with 3 GiB, two of one container with 2 GiB each, one without a known memory.
    #[test]
    fn the_owner_is_who_holds_most() {
        let proc = tempfile::tempdir().unwrap();
        let process = |pid: u32, gib: Option<u64>, cgroup: &str| {
            let folder = proc.path().join(pid.to_string());
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("cgroup"), cgroup).unwrap();
            std::fs::write(folder.join("comm"), format!("program{pid}\n")).unwrap();
            Process { pid, memory_bytes: gib.map(|gib| gib << 30), ..Process::default() }
        };
        let container = format!("0::/system.slice/docker-{ID}.scope\n");
        let alone = process(1, Some(3), "0::/\n");
        let processes =
            vec![alone.clone(), process(2, Some(2), &container), process(3, Some(2), &container), process(4, None, "")];
        let text =
            |entry: &Entry, column: &str| entry.texts.iter().find(|(name, _)| *name == column).map(|(_, v)| v.clone());
        let mut entry = Entry { processes, ..Entry::default() };
        fill(&mut entry, proc.path());
        assert_eq!(text(&entry, "owner_container_id").as_deref(), Some(ID));
        assert_eq!(text(&entry, "owner_command"), None, "a container is named, not one of its programs");
        let mut entry = Entry { processes: vec![alone], ..Entry::default() };
        fill(&mut entry, proc.path());
        assert_eq!(text(&entry, "owner_command").as_deref(), Some("program1"));
        // A process that has ended: what the source called it.
        let gone = Process { pid: 99, name: Some("/opt/x/server --key 1".into()), ..Process::default() };
        let mut entry = Entry { processes: vec![gone], ..Entry::default() };
        fill(&mut entry, proc.path());
        assert_eq!(entry.texts, [("owner_command", "server".to_owned())]);
        let mut none = Entry::default();
        fill(&mut none, proc.path());
        assert_eq!(none, Entry::default());
    }
}
