//! System calls that have no safe wrapper: the one file with `unsafe`.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use tokio::io::unix::AsyncFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::{ForkResult, Pid};

/// Where our own descriptors go in a process that becomes a container's init,
/// so that the low numbers are free for those that the program is given.
const OWN_DESCRIPTORS: RawFd = 200;

/// The first descriptor that a container's program is given beside its stdio.
pub(crate) const FIRST_PASSED: RawFd = 3;

/// Duplicates `fd`, close-on-exec, at a number that no passed descriptor has.
///
/// # Errors
/// `fcntl(2)`; chiefly that the limit of open files is reached.
pub(crate) fn duplicate_high(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let duplicate = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(OWN_DESCRIPTORS))?;
    // SAFETY: the kernel has just returned this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(duplicate) })
}

/// The descriptor that the parent put at standard input, moved away from
/// there: `/dev/null` takes its place.
///
/// # Errors
/// Standard input is closed, or `/dev/null` can't be opened.
pub(crate) fn take_stdin() -> io::Result<OwnedFd> {
    let stdin = duplicate_high(std::os::fd::AsFd::as_fd(&io::stdin()))?;
    let null = File::options().read(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    Ok(stdin)
}

/// Replaces this process by the program in the file `program`. Each of
/// `passed` becomes [`FIRST_PASSED`], and so on, in the new program. Returns
/// only if that fails.
pub(crate) fn execute(
    program: &OwnedFd,
    passed: &[OwnedFd],
    arguments: &[CString],
    environment: &[CString],
) -> io::Error {
    for (target, fd) in (FIRST_PASSED..).zip(passed) {
        // `dup2` clears close-on-exec, except onto itself.
        debug_assert!(fd.as_raw_fd() >= OWN_DESCRIPTORS);
        // SAFETY: both are plain numbers; this process holds nothing of value
        // at `target`, since its own descriptors are at higher numbers.
        if unsafe { libc::dup2(fd.as_raw_fd(), target) } < 0 {
            return io::Error::last_os_error();
        }
    }
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        let strings = strings.iter().map(|string| string.as_ptr());
        strings.chain([std::ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both arrays end with a null pointer, point to strings that end
    // with NUL, and live until the call returns, which is only on failure.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

/// Makes a copy of this process: nothing in the copy, its id in this one.
///
/// # Errors
/// `fork(2)`; or this process has more than one thread.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("this process has several threads"));
    }
    // SAFETY: with a single thread, checked above, no lock of the copy is held
    // by a thread that it does not have.
    Ok(match unsafe { nix::unistd::fork()? } {
        ForkResult::Child => None,
        ForkResult::Parent { child } => Some(child),
    })
}

/// Has `command` run with each of `passed` as [`FIRST_PASSED`], and so on. They
/// must come from [`duplicate_high`], and stay open until it runs.
///
/// # Errors
/// One has too low a number.
pub(crate) fn pass_descriptors(command: &mut Command, passed: Vec<OwnedFd>) -> io::Result<()> {
    use std::os::unix::process::CommandExt;
    if passed.iter().any(|fd| fd.as_raw_fd() < OWN_DESCRIPTORS) {
        return Err(io::Error::other("a descriptor to pass has too low a number"));
    }
    let place = move || {
        for (target, fd) in (FIRST_PASSED..).zip(&passed) {
            // SAFETY: both are plain numbers. What this process has at
            // `target` is needed by none but the parent, which has its own.
            if unsafe { libc::dup2(fd.as_raw_fd(), target) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec it calls only `dup2`, which is
    // async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(place) };
    Ok(())
}

/// Commands and constants of `bpf(2)`, linux/bpf.h.
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The part of `union bpf_attr` that loads a program.
#[repr(C)]
#[derive(Default)]
struct LoadProgram {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// The part of `union bpf_attr` that attaches one.
#[repr(C)]
#[derive(Default)]
struct AttachProgram {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

/// Gives the kernel a program that decides about devices. It checks it first.
///
/// # Errors
/// `bpf(2)`: the program is not valid, or the privileges are missing.
pub(crate) fn load_device_program(instructions: &[u64]) -> io::Result<OwnedFd> {
    let attributes = LoadProgram {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..LoadProgram::default()
    };
    // SAFETY: the structure has the size that is passed, the instructions are
    // as many as it says and eight bytes each, the licence ends with NUL, and
    // all outlive the call.
    let program = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size_of::<LoadProgram>())
    };
    let program = RawFd::try_from(program).unwrap_or(-1);
    if program < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(program) })
}

/// Has such a program decide for a cgroup, beside others that do.
///
/// # Errors
/// `bpf(2)`.
pub(crate) fn attach_device_program(cgroup: &impl AsRawFd, program: &OwnedFd) -> io::Result<()> {
    let number = |fd: RawFd| u32::try_from(fd).map_err(io::Error::other);
    let attributes = AttachProgram {
        target: number(cgroup.as_raw_fd())?,
        program: number(program.as_raw_fd())?,
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the structure has the size that is passed and outlives the call.
    let attached = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attributes, size_of::<AttachProgram>())
    };
    if attached < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `struct mount_attr` of `mount_setattr(2)`.
#[repr(C)]
#[derive(Default)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Opens the file at `path` for reading, as [`read_only`] has it.
///
/// # Errors
/// The file can't be opened.
pub(crate) fn open_read_only(path: &Path) -> io::Result<File> {
    File::options().read(true).open(path).map(read_only)
}

/// The same file on a private read-only mount of it.
///
/// Whoever is given the descriptor can't open it again for writing through
/// `/proc/self/fd`, not even as root: a container can't overwrite the node's
/// own program or precompiled code (compare CVE-2019-5736). Where the kernel
/// or the privileges don't allow it, this is the file as it is.
pub(crate) fn read_only(file: File) -> File {
    let reopened = clone_read_only(&file)
        .and_then(|tree| File::options().read(true).open(format!("/proc/self/fd/{}", tree.as_raw_fd())));
    reopened.unwrap_or(file)
}

/// Whether [`read_only`] can do more than give the file back.
///
/// # Errors
/// Of `open_tree(2)` or `mount_setattr(2)`, or the file can't be opened.
pub(crate) fn can_clone_read_only(path: &Path) -> io::Result<()> {
    clone_read_only(&File::options().read(true).open(path)?).map(drop)
}

fn clone_read_only(file: &File) -> io::Result<OwnedFd> {
    let itself: &CStr = c"";
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH.cast_unsigned();
    // SAFETY: the descriptor is open, the path ends with NUL, and both outlive
    // the call.
    let tree = unsafe { libc::syscall(libc::SYS_open_tree, file.as_raw_fd(), itself.as_ptr(), flags) };
    let tree = RawFd::try_from(tree).map_err(io::Error::other)?;
    if tree < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor and nobody else has it.
    let tree = unsafe { OwnedFd::from_raw_fd(tree) };
    let attributes = MountAttributes { set: libc::MOUNT_ATTR_RDONLY, ..MountAttributes::default() };
    // SAFETY: `attributes` is laid out as the kernel expects, its size is
    // given, and it and the empty path outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            itself.as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(tree)
}

/// Has the kernel kill this process when its parent dies.
///
/// # Errors
/// `prctl(2)`, or the parent, which must be `parent`, has died already.
pub(crate) fn die_with_parent(parent: Pid) -> io::Result<()> {
    // SAFETY: this option takes one number and no pointer.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if nix::unistd::getppid() == parent {
        Ok(())
    } else {
        Err(io::Error::other("the shim that started this has ended"))
    }
}

/// Has the kernel give this process, and those that it starts, the CPU later
/// than others.
///
/// # Errors
/// `setpriority(2)`.
pub(crate) fn lower_priority() -> io::Result<()> {
    // SAFETY: this call takes three numbers; 0 is this process.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Makes this process the parent of all orphans among its descendants.
///
/// # Errors
/// `prctl(2)`.
pub(crate) fn become_subreaper() -> io::Result<()> {
    // SAFETY: this option takes one number and no pointer.
    if unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Gives SIGPIPE its default effect again, which Rust's runtime takes from
/// every program: the container's would inherit that.
pub(crate) fn restore_sigpipe() {
    // SAFETY: no handler is installed that could run.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Sends the signal of this number, which may be a real-time signal.
///
/// # Errors
/// `kill(2)`: the process has ended, or there is no such signal.
pub(crate) fn send_signal(pid: i32, signal: i32) -> io::Result<()> {
    if pid <= 0 {
        // That would mean a group of processes, or all.
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: this call takes two numbers.
    if unsafe { libc::kill(pid, signal) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Receives one descriptor over a socket, unix(7).
///
/// # Errors
/// The message has none, or there is no message.
pub(crate) fn receive_descriptor(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = [0; 64];
    let mut content = [io::IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut content, Some(&mut space), flags)?;
    let received = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
        _ => None,
    });
    let received = received.ok_or_else(|| io::Error::other("the message has no descriptor"))?;
    // SAFETY: the kernel has just made this descriptor for us and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(received) })
}

/// Makes reading and writing return at once.
///
/// # Errors
/// `fcntl(2)`.
pub(crate) fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Sets a terminal's size, in characters.
///
/// # Errors
/// `ioctl_tty(2)`: it is not a terminal.
pub(crate) fn set_window_size(terminal: &File, width: u16, height: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: this request reads one `winsize`, which outlives the call.
    if unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Has the runtime tell when `file`, which must be nonblocking, can be read or
/// written.
///
/// # Errors
/// It is a file that can't be waited for.
pub(crate) fn register(file: File) -> io::Result<AsyncFd<File>> {
    // SAFETY: a `File` owns a valid descriptor, and nobody can replace or
    // close it while the result owns the file.
    Ok(unsafe { AsyncFd::register(file)? })
}

/// Opens a file that only we can have written: no link, our own, and closed to
/// others.
///
/// # Errors
/// It can't be opened, or somebody else may have written it.
pub(crate) fn open_ours(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    // Not blocked by a fifo.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = options.read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    let is_ours = metadata.is_file()
        && metadata.uid() == nix::unistd::geteuid().as_raw()
        && metadata.mode() & 0o022 == 0;
    if is_ours { Ok(file) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// Sets a system call filter, seccomp(2), of whole instructions of 8 bytes, for
/// this thread. It can't be taken back.
///
/// # Errors
/// The kernel refuses the program, or the thread may not set any.
pub(crate) fn set_seccomp(program: &[u8], flags: u64) -> io::Result<()> {
    let (instructions, _) = program.as_chunks::<8>();
    let length = u16::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // The kernel copies it, from whatever alignment.
    let program = libc::sock_fprog { len: length, filter: instructions.as_ptr().cast_mut().cast() };
    // SAFETY: the kernel reads `len` instructions of 8 bytes from `filter`,
    // which the slice has, and keeps no pointer.
    let set =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if set != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
