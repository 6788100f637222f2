//! A server's processes, all together: which there are, what they hold, and which
//! of them has a connection.

use std::collections::BTreeMap;

/// A process and all that it started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    members: Vec<u32>,
    leaves: Vec<u32>,
}

impl Family {
    /// The process `root` and its descendants, as they are now.
    #[must_use]
    pub fn of(root: u32) -> Self {
        Self::of_all(&[root])
    }

    /// The process `member` without its descendants.
    #[must_use]
    pub fn alone(member: u32) -> Self {
        Self { members: vec![member], leaves: vec![member] }
    }

    /// Several processes and their descendants, as they are now.
    #[must_use]
    pub fn of_all(roots: &[u32]) -> Self {
        let parents = parents();
        let mut members = roots.to_vec();
        let mut leaves = Vec::new();
        let mut at = 0;
        while let Some(&parent) = members.get(at) {
            let children = parents.iter().filter(|(_, of)| **of == parent).map(|(child, _)| *child);
            let children: Vec<u32> = children.filter(|child| !members.contains(child)).collect();
            if children.is_empty() {
                leaves.push(parent);
            }
            members.extend(children);
            at += 1;
        }
        Self { members, leaves }
    }

    /// Their ids, parents first.
    #[must_use]
    pub fn members(&self) -> &[u32] {
        &self.members
    }

    /// Those that started no other: of a server with a master, its workers.
    #[must_use]
    pub fn leaves(&self) -> &[u32] {
        &self.leaves
    }

    /// Proportional set size in bytes: pages that several share are counted once.
    #[must_use]
    pub fn pss(&self) -> u64 {
        self.members.iter().map(|process| kibibytes(*process, "smaps_rollup", "Pss:") * 1024).sum()
    }

    /// Resident set size in bytes: pages that several share are counted for each.
    #[must_use]
    pub fn rss(&self) -> u64 {
        self.members.iter().map(|process| kibibytes(*process, "status", "VmRSS:") * 1024).sum()
    }

    /// Bytes of it that are in no file: what the processes wrote.
    #[must_use]
    pub fn anonymous(&self) -> u64 {
        self.members.iter().map(|process| kibibytes(*process, "smaps_rollup", "Anonymous:") * 1024).sum()
    }

    /// Open file descriptors.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        let open =
            |process: &u32| std::fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count);
        self.members.iter().map(open).sum()
    }

    /// The member that accepted the connection from `client` to `server`, two
    /// ports of one network; none if nobody has (yet), or it is closed.
    #[must_use]
    pub fn serving(&self, server: u16, client: u16) -> Option<u32> {
        let connections = std::fs::read_to_string(format!("/proc/{}/net/tcp", self.members.first()?)).ok()?;
        // proc_pid_net(5): sl, local_address, rem_address, st, …, and inode tenth.
        let inode = connections.lines().skip(1).find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let ports = (port(fields.get(1)?)?, port(fields.get(2)?)?);
            (ports == (server, client)).then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
        })?;
        let holds = |process: &&u32| {
            let open = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
            open.filter_map(|entry| std::fs::read_link(entry.path()).ok())
                .any(|target| target.as_os_str() == inode.as_str())
        };
        self.members.iter().find(holds).copied()
    }
}

/// Of `0100007F:1F90`.
fn port(address: &str) -> Option<u16> {
    u16::from_str_radix(address.split_once(':')?.1, 16).ok()
}

/// Each process' parent.
fn parents() -> BTreeMap<u32, u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    processes
        .filter_map(|entry| {
            let process = entry.file_name().to_str()?.parse().ok()?;
            let status = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // After the name in parentheses: state, parent.
            let parent = status.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()?;
            Some((process, parent))
        })
        .collect()
}

/// A line of a file of /proc; 0 for a process that has ended.
fn kibibytes(process: u32, file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_family_is_a_process_and_those_that_it_started() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let family = Family::of(std::process::id());
        assert_eq!(family.members()[0], std::process::id());
        assert!(family.leaves().contains(&child.id()), "{family:?}");
        assert!(!family.leaves().contains(&std::process::id()), "{family:?}");
        assert!(family.rss() >= family.pss() / 2 && family.pss() > 0, "{family:?}");
        // Its end of the pipe closes, and it ends.
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn the_process_that_holds_a_connection_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, peer) = listener.accept().unwrap();
        let family = Family::of(std::process::id());
        let ports = (server.local_addr().unwrap().port(), peer.port());
        assert_eq!(family.serving(ports.0, ports.1), Some(std::process::id()));
        // A connection that there is not is nobody's.
        assert_eq!(family.serving(ports.0, 1), None);
        drop(client);
    }
}
