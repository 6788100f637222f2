//! Removing what a container leaves: processes, cgroup, mounts, state.
//!
//! It goes by what lies on disk alone, so that it also cleans up after a shim
//! that was killed. Used by the `delete` action, by the helper after a task
//! was deleted, and after a create that failed midway.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::shim::DeleteResponse;

use crate::arguments::Arguments;
use crate::bundle::{Bundle, BundleError, Record};
use crate::cgroup::{Cgroup, CgroupError};
use crate::rootfs::{self, MountError};
use crate::sys;

/// Time for killed processes to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Exit status of what was killed here: 128 + SIGKILL.
const KILLED: u32 = 137;

/// What could not be removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CleanupError {
    /// The bundle can't be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The cgroup stays.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The root file system stays mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// Our folder in the bundle stays; the cause names it.
    #[error("cannot remove the container's state")]
    State(#[source] io::Error),
}

/// The `delete` action: containerd calls it when the server is gone.
///
/// # Errors
/// [`CleanupError`].
pub(crate) fn delete(arguments: &Arguments) -> Result<Vec<u8>> {
    let bundle = if arguments.bundle.as_os_str().is_empty() {
        Bundle::current()?
    } else {
        Bundle::new(&arguments.bundle)
    };
    let record = bundle.load_record().unwrap_or_default();
    remove(&bundle).with_context(|| format!("cannot clean up container {:?}", arguments.id))?;
    remove_dead_socket(&bundle);
    let response = DeleteResponse {
        pid: record.pid.try_into().unwrap_or(0),
        exit_status: KILLED,
        exited_at: MessageField::some(timestamp(SystemTime::now())),
        ..DeleteResponse::default()
    };
    response.write_to_bytes().context("cannot encode the answer to containerd")
}

/// Kills what still runs and removes cgroup, mounts and state. What is gone
/// already is no error.
///
/// # Errors
/// [`CleanupError`]; what could be removed is removed even so.
pub(crate) fn remove(bundle: &Bundle) -> Result<(), CleanupError> {
    // First: what is still being made would come back.
    stop_creator(bundle);
    let record = bundle.load_record().unwrap_or_default();
    // Before the cgroup: in its own pid namespace all others die with it.
    kill_recorded(&record);
    let cgroups = [
        Ok(Cgroup::new(record.cgroup)),
        // The record has none if creating was cut short.
        cgroup_of_spec(bundle),
    ];
    let mut outcome = Ok(());
    for cgroup in cgroups {
        let removed = cgroup.and_then(|cgroup| {
            cgroup.kill()?;
            Ok(cgroup.remove()?)
        });
        outcome = outcome.and(removed);
    }
    let unmounted = rootfs::unmount_all(&bundle.rootfs()).map_err(CleanupError::from);
    let state = match fs_err::remove_dir_all(bundle.state()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CleanupError::State(error)),
        _ => Ok(()),
    };
    outcome.and(unmounted).and(state)
}

/// Ends a helper that still creates the container, with what it started:
/// processes of libcontainer, which do not die with it.
fn stop_creator(bundle: &Bundle) {
    let Some(creator) = bundle.load_creator() else {
        return;
    };
    // Ourselves, cleaning up; or another process of its id, which there can't
    // be while any of its group is left.
    let ours = nix::unistd::getpid().as_raw() == creator.pid;
    if ours || started(creator.pid).is_some_and(|started| started != creator.started) {
        return;
    }
    let deadline = Instant::now() + PATIENCE;
    let mut left = members(creator.pid);
    while !left.is_empty() && Instant::now() < deadline {
        for pid in left {
            let _ = sys::send_signal(pid, libc::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(2));
        left = members(creator.pid);
    }
}

/// The processes of a group that have not ended.
fn members(group: i32) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // proc(5): after the name its state, its parent and its group.
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        let mut fields = fields.split(' ');
        !matches!(fields.next(), None | Some("" | "Z" | "X")) && fields.nth(1) == Some(&group.to_string())
    })
    .collect()
}

fn cgroup_of_spec(bundle: &Bundle) -> Result<Cgroup, CleanupError> {
    // containerd may call `delete` for a bundle that is half gone.
    let Ok(spec) = bundle.load_spec() else {
        return Ok(Cgroup::default());
    };
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone());
    match path {
        Some(path) => Ok(Cgroup::at(&path).map_err(CgroupError::from)?),
        None => Ok(Cgroup::default()),
    }
}

fn kill_recorded(record: &Record) {
    if record.pid > 0 && started(record.pid) == Some(record.started) {
        // Fails only if it has ended by itself meanwhile.
        let _ = sys::send_signal(record.pid, libc::SIGKILL);
    }
}

/// When the process was started, in clock ticks since boot, proc(5).
pub(crate) fn started(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(19)?.parse().ok()
}

/// Removes the server's socket unless a server listens there: that of a pod
/// serves its other containers.
fn remove_dead_socket(bundle: &Bundle) {
    let Ok(address) = std::fs::read_to_string(bundle.address_file()) else {
        return;
    };
    let Some(path) = address.trim().strip_prefix("unix://") else {
        return;
    };
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if UnixStream::connect(path).is_err_and(refused) {
        let _ = std::fs::remove_file(Path::new(path));
    }
}

/// A time as protobuf has it.
pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: since.as_secs().try_into().unwrap_or(i64::MAX),
        nanos: since.subsec_nanos().try_into().unwrap_or(0),
        ..Timestamp::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::ProcessMark;

    #[test]
    fn an_empty_bundle_is_clean_and_an_answer_says_killed() {
        let folder = tempfile::tempdir().unwrap();
        let arguments =
            Arguments { id: "abc".into(), bundle: folder.path().to_owned(), ..Arguments::default() };
        let answer = DeleteResponse::parse_from_bytes(&delete(&arguments).unwrap()).unwrap();
        assert_eq!(answer.exit_status, KILLED);
        assert!(answer.exited_at.seconds > 0);
    }

    #[test]
    fn only_the_recorded_process_is_killed_not_a_later_one_of_its_id() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let mut record = Record { pid, started: 1, ..Record::default() };
        kill_recorded(&record);
        assert!(child.try_wait().unwrap().is_none());
        record.started = started(pid).unwrap();
        kill_recorded(&record);
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_helper_that_still_creates_is_ended_with_all_that_it_started() {
        use std::os::unix::process::CommandExt;

        let folder = tempfile::tempdir().unwrap();
        let bundle = Bundle::new(folder.path());
        bundle.create_state().unwrap();
        let mut helper = std::process::Command::new("sh")
            .args(["-c", "sleep 60 & sleep 60"])
            .process_group(0)
            .spawn()
            .unwrap();
        let pid = i32::try_from(helper.id()).unwrap();
        while members(pid).len() < 3 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let started = started(pid).unwrap();
        bundle.save_creator(ProcessMark { pid, started: started + 1 }).unwrap();
        stop_creator(&bundle);
        assert_eq!(members(pid).len(), 3, "another process of its id");
        bundle.save_creator(ProcessMark { pid, started }).unwrap();
        stop_creator(&bundle);
        assert_eq!(members(pid), [0; 0]);
        assert!(!helper.wait().unwrap().success());
    }

    #[test]
    fn a_live_servers_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = Bundle::new(folder.path());
        let socket = folder.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::fs::write(bundle.address_file(), format!("unix://{}", socket.display())).unwrap();
        remove_dead_socket(&bundle);
        assert!(socket.exists());
        drop(listener);
        remove_dead_socket(&bundle);
        assert!(!socket.exists());
    }
}
