//! A container's system call filter, compiled once.
//!
//! libseccomp takes 10 ms to make the kernel's program of Docker's profile, which
//! containers have unless told otherwise. So programs are kept, by what they were made
//! of, until the machine is started anew; without the folder they are made each time.
//! libcontainer, which can't take one that is made, makes its own for processes that may
//! gain privileges: see [`take`].

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use libseccomp::error::SeccompError as LibraryError;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::sys::memfd::{MFdFlags, memfd_create};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall, Spec,
};
use wharf_app::Sha256;

use crate::sys;

/// Where programs are kept.
const FOLDER: &str = "/run/wharf/seccomp";

/// Programs that are kept at most. A node has a few profiles.
const KEPT: usize = 64;

/// Longest program that the kernel takes, in instructions: bpf(4), `BPF_MAXINSNS`.
const MAX_INSTRUCTIONS: usize = 4096;

/// Length of an instruction, `struct sock_filter`, and of the digest before them.
const INSTRUCTION: usize = 8;
const DIGEST: usize = 32;

/// A filter that the kernel can be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    /// The instructions as the kernel has them in memory.
    program: Vec<u8>,
    flags: u64,
}

/// A profile can't be made a filter.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilterError {
    /// Who is asked must be told over a socket, which only libcontainer does.
    #[error("expected a seccomp profile without SCMP_ACT_NOTIFY")]
    Notify,
    /// An action's number is too large.
    #[error("seccomp action SCMP_ACT_TRACE has errnoRet {0}: expected at most 65535")]
    Trace(u32),
    /// libseccomp refuses.
    #[error("cannot make a seccomp filter of the profile")]
    Library(#[from] LibraryError),
    /// The program can't be had from libseccomp.
    #[error("cannot read the seccomp filter")]
    Export(#[from] io::Error),
}

/// Takes the profile out of the spec as a filter to be set just before the
/// program runs. None if there is none, or if it has to be left to libcontainer:
/// where privileges are needed to set it, or hooks run under it, or somebody
/// listens.
///
/// # Errors
/// [`FilterError`].
pub(crate) fn take(spec: &mut Spec) -> Result<Option<Filter>, FilterError> {
    let hooks = spec.hooks().as_ref().and_then(|hooks| hooks.start_container().as_ref());
    let has_hooks = hooks.is_some_and(|hooks| !hooks.is_empty());
    let is_late = spec.process().as_ref().is_some_and(|process| process.no_new_privileges() == Some(true));
    let Some(linux) = spec.linux_mut().as_mut().filter(|_| is_late && !has_hooks) else {
        return Ok(None);
    };
    let Some(profile) = linux.seccomp().as_ref().filter(|profile| !is_notify(profile)) else {
        return Ok(None);
    };
    let filter = Filter::of(profile)?;
    linux.set_seccomp(None);
    Ok(Some(filter))
}

/// Whether somebody is to be asked.
pub(crate) fn is_notify(profile: &LinuxSeccomp) -> bool {
    let mut calls = profile.syscalls().iter().flatten();
    profile.default_action() == LinuxSeccompAction::ScmpActNotify
        || calls.any(|call| call.action() == LinuxSeccompAction::ScmpActNotify)
}

impl Filter {
    /// The filter of a profile: the one that is kept, or a new one.
    ///
    /// # Errors
    /// [`FilterError`].
    pub(crate) fn of(profile: &LinuxSeccomp) -> Result<Self, FilterError> {
        Self::kept_in(Path::new(FOLDER), profile)
    }

    fn kept_in(folder: &Path, profile: &LinuxSeccomp) -> Result<Self, FilterError> {
        let flags = flags(profile);
        let kept = folder.join(name(profile)?);
        if let Some(program) = read(&kept) {
            return Ok(Self { program, flags });
        }
        let program = compile(profile)?;
        if let Err(error) = keep(folder, &kept, &program) {
            tracing::debug!(%error, "cannot keep a seccomp filter");
        }
        Ok(Self { program, flags })
    }

    /// Sets it for this thread, which must have no new privileges or
    /// `CAP_SYS_ADMIN`. Allocates nothing.
    ///
    /// # Errors
    /// `seccomp(2)`.
    pub(crate) fn set(&self) -> io::Result<()> {
        sys::set_seccomp(&self.program, self.flags)
    }
}

/// By what a filter is known: all that it is made of.
fn name(profile: &LinuxSeccomp) -> io::Result<String> {
    let library = libseccomp::ScmpVersion::current().map(|version| version.to_string()).unwrap_or_default();
    let mut all = format!("{} {library} {} ", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH).into_bytes();
    serde_json::to_writer(&mut all, profile)?;
    Ok(Sha256::of(&all).to_string())
}

/// A program that was kept, if only we can have written it and it is whole.
fn read(path: &Path) -> Option<Vec<u8>> {
    let mut file = sys::open_ours(path).ok()?;
    let mut digest = [0; DIGEST];
    file.read_exact(&mut digest).ok()?;
    let mut program = Vec::new();
    file.take((MAX_INSTRUCTIONS * INSTRUCTION + 1) as u64).read_to_end(&mut program).ok()?;
    (is_program(&program) && seal(path, &program) == digest).then_some(program)
}

/// The digest of a program and of the name that it is kept by: no other's will do.
fn seal(path: &Path, program: &[u8]) -> [u8; DIGEST] {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    *Sha256::of(&[name, program].concat()).as_bytes()
}

fn is_program(program: &[u8]) -> bool {
    program.len().is_multiple_of(INSTRUCTION)
        && (1..=MAX_INSTRUCTIONS).contains(&(program.len() / INSTRUCTION))
}

fn keep(folder: &Path, path: &Path, program: &[u8]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut others: Vec<(std::time::SystemTime, PathBuf)> = fs_err::read_dir(folder)?
        .filter_map(|entry| {
            Some((entry.as_ref().ok()?.metadata().ok()?.modified().ok()?, entry.ok()?.path()))
        })
        .collect();
    others.sort();
    let surplus = (others.len() + 1).saturating_sub(KEPT);
    for (_, oldest) in others.into_iter().take(surplus) {
        let _ = fs_err::remove_file(oldest);
    }
    let temporary = path.with_extension(std::process::id().to_string());
    let write = || -> io::Result<()> {
        let mut options = File::options();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(&seal(path, program))?;
        file.write_all(program)?;
        fs_err::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        let _ = fs_err::remove_file(&temporary);
    })
}

/// The flags of `seccomp(2)`. Those that libcontainer sets too, but that of
/// listeners: there are none here.
fn flags(profile: &LinuxSeccomp) -> u64 {
    let flag = |flag: &LinuxSeccompFilterFlag| match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => libc::SECCOMP_FILTER_FLAG_TSYNC,
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
    };
    profile.flags().iter().flatten().fold(0, |all, one| all | flag(one))
}

/// Has libseccomp make a program: config-linux.md, "Seccomp".
fn compile(profile: &LinuxSeccomp) -> Result<Vec<u8>, FilterError> {
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let mut context = ScmpFilterContext::new(default)?;
    for architecture in profile.architectures().iter().flatten() {
        context.add_arch(arch(*architecture))?;
    }
    for calls in profile.syscalls().iter().flatten() {
        let action = action(calls.action(), calls.errno_ret())?;
        if action != default {
            add(&mut context, calls, action)?;
        }
    }
    let mut file =
        File::from(memfd_create(c"wharf-seccomp", MFdFlags::MFD_CLOEXEC).map_err(io::Error::from)?);
    context.export_bpf(&file)?;
    let mut program = Vec::new();
    io::Seek::rewind(&mut file)?;
    file.read_to_end(&mut program)?;
    if is_program(&program) {
        Ok(program)
    } else {
        Err(io::Error::other(format!("it has {} bytes", program.len())).into())
    }
}

fn add(context: &mut ScmpFilterContext, calls: &LinuxSyscall, action: ScmpAction) -> Result<(), FilterError> {
    let arguments: Vec<_> = calls.args().iter().flatten().collect();
    let indexes: BTreeSet<usize> = arguments.iter().map(|argument| argument.index()).collect();
    let comparisons: Vec<ScmpArgCompare> = arguments
        .iter()
        .map(|argument| {
            // There are six arguments: a larger index is refused by libseccomp.
            let index = u32::try_from(argument.index()).unwrap_or(u32::MAX);
            ScmpArgCompare::new(index, comparison(argument.op(), argument.value_two()), argument.value())
        })
        .collect();
    for name in calls.names() {
        // A name that libseccomp does not know is of a newer kernel, as runc has it.
        let Ok(call) = ScmpSyscall::from_name(name) else { continue };
        if indexes.len() == comparisons.len() {
            context.add_rule_conditional(action, call, &comparisons)?;
        } else {
            // Two of one argument can't be in one rule; runc makes rules of them all.
            for comparison in comparisons.chunks(1) {
                context.add_rule_conditional(action, call, comparison)?;
            }
        }
    }
    Ok(())
}

fn action(action: LinuxSeccompAction, number: Option<u32>) -> Result<ScmpAction, FilterError> {
    let number = number.unwrap_or(libc::EPERM.cast_unsigned());
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(number.cast_signed()),
        LinuxSeccompAction::ScmpActTrace => {
            ScmpAction::Trace(number.try_into().map_err(|_| FilterError::Trace(number))?)
        }
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActNotify => return Err(FilterError::Notify),
    })
}

fn comparison(operator: LinuxSeccompOperator, second: Option<u64>) -> ScmpCompareOp {
    match operator {
        LinuxSeccompOperator::ScmpCmpNe => ScmpCompareOp::NotEqual,
        LinuxSeccompOperator::ScmpCmpLt => ScmpCompareOp::Less,
        LinuxSeccompOperator::ScmpCmpLe => ScmpCompareOp::LessOrEqual,
        LinuxSeccompOperator::ScmpCmpEq => ScmpCompareOp::Equal,
        LinuxSeccompOperator::ScmpCmpGe => ScmpCompareOp::GreaterEqual,
        LinuxSeccompOperator::ScmpCmpGt => ScmpCompareOp::Greater,
        LinuxSeccompOperator::ScmpCmpMaskedEq => ScmpCompareOp::MaskedEqual(second.unwrap_or(0)),
    }
}

fn arch(arch: Arch) -> ScmpArch {
    match arch {
        Arch::ScmpArchNative => ScmpArch::Native,
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchMips => ScmpArch::Mips,
        Arch::ScmpArchMips64 => ScmpArch::Mips64,
        Arch::ScmpArchMips64n32 => ScmpArch::Mips64N32,
        Arch::ScmpArchMipsel => ScmpArch::Mipsel,
        Arch::ScmpArchMipsel64 => ScmpArch::Mipsel64,
        Arch::ScmpArchMipsel64n32 => ScmpArch::Mipsel64N32,
        Arch::ScmpArchPpc => ScmpArch::Ppc,
        Arch::ScmpArchPpc64 => ScmpArch::Ppc64,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchS390 => ScmpArch::S390,
        Arch::ScmpArchS390x => ScmpArch::S390X,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        Arch::ScmpArchParisc => ScmpArch::Parisc,
        Arch::ScmpArchParisc64 => ScmpArch::Parisc64,
        Arch::ScmpArchLoongarch64 => ScmpArch::Loongarch64,
        Arch::ScmpArchM68k => ScmpArch::M68k,
        Arch::ScmpArchSh => ScmpArch::Sh,
        Arch::ScmpArchSheb => ScmpArch::Sheb,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(json: &str) -> LinuxSeccomp {
        serde_json::from_str(json).unwrap()
    }

    const CHDIR: &str = r#"{ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [{ "names": ["chdir", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77 }] }"#;

    #[test]
    fn a_filter_is_kept_and_one_that_was_changed_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("kept");
        let made = Filter::kept_in(&folder, &profile(CHDIR)).unwrap();
        assert_eq!(made.flags, libc::SECCOMP_FILTER_FLAG_LOG);
        let files = || -> Vec<PathBuf> {
            fs_err::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect()
        };
        let [file] = &files()[..] else { panic!("{:?}", files()) };
        assert_eq!(read(file), Some(made.program.clone()));
        let content = fs_err::read(file).unwrap();
        let changed = [&content[..content.len() - 1], b"!"].concat();
        let cut = content[..content.len() - INSTRUCTION].to_vec();
        for damaged in [changed, cut, vec![]] {
            fs_err::write(file, damaged).unwrap();
            assert_eq!(read(file), None);
            assert_eq!(Filter::kept_in(&folder, &profile(CHDIR)).unwrap(), made);
            assert_eq!(fs_err::read(file).unwrap(), content, "it is written anew");
        }
        let another = file.with_extension("moved");
        fs_err::rename(file, &another).unwrap();
        assert_eq!(read(&another), None, "it was kept by another name");
        fs_err::rename(&another, file).unwrap();
        assert!(read(file).is_some());
        fs_err::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        assert_eq!(read(file), None, "others may have written it");
    }

    #[test]
    fn no_more_than_some_are_kept_and_none_need_be() {
        let folder = tempfile::tempdir().unwrap();
        for number in 1..=KEPT + 3 {
            let json = CHDIR.replace("77", &number.to_string());
            let _ = Filter::kept_in(folder.path(), &profile(&json)).unwrap();
        }
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), KEPT);
        let nowhere = Path::new("/proc/no/such");
        assert!(Filter::kept_in(nowhere, &profile(CHDIR)).is_ok());
    }

    #[test]
    fn the_kernel_obeys_a_filter() {
        let folder = tempfile::tempdir().unwrap();
        let filter = Filter::kept_in(folder.path(), &profile(CHDIR)).unwrap();
        // Of a thread: the filter goes with it.
        let refused = std::thread::spawn(move || {
            nix::sys::prctl::set_no_new_privs().unwrap();
            filter.set().unwrap();
            nix::unistd::chdir("/")
        });
        assert_eq!(refused.join().unwrap(), Err(nix::errno::Errno::from_raw(77)));
    }

    #[test]
    fn what_only_libcontainer_can_do_is_left_to_it() {
        let spec = |privileges: &str, hooks: &str, action: &str| -> Spec {
            let json = format!(
                r#"{{ "ociVersion": "1.0.2", "hooks": {hooks},
                    "process": {{ "cwd": "/", "user": {{ "uid": 0, "gid": 0 }}, "noNewPrivileges": {privileges} }},
                    "linux": {{ "seccomp": {{ "defaultAction": "SCMP_ACT_ALLOW",
                        "syscalls": [{{ "names": ["swapon"], "action": "{action}" }}] }} }} }}"#
            );
            serde_json::from_str(&json).unwrap()
        };
        let is_taken = |mut spec: Spec| {
            let taken = take(&mut spec).unwrap().is_some();
            assert_eq!(spec.linux().as_ref().unwrap().seccomp().is_none(), taken);
            taken
        };
        let hook = r#"{ "startContainer": [{ "path": "/bin/true" }] }"#;
        assert!(is_taken(spec("true", "{}", "SCMP_ACT_ERRNO")));
        assert!(!is_taken(spec("false", "{}", "SCMP_ACT_ERRNO")));
        assert!(!is_taken(spec("true", hook, "SCMP_ACT_ERRNO")));
        assert!(!is_taken(spec("true", "{}", "SCMP_ACT_NOTIFY")));
    }

    #[test]
    fn conditions_on_one_argument_are_rules_of_their_own() {
        let compile = |arguments: &str| {
            let json = format!(
                r#"{{ "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                    "syscalls": [{{ "names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{arguments}] }}] }}"#
            );
            compile(&profile(&json))
        };
        let zero = r#"{ "index": 0, "value": 0, "op": "SCMP_CMP_EQ" }"#;
        let eight = r#"{ "index": 0, "value": 8, "op": "SCMP_CMP_EQ" }"#;
        let (one, both) = (compile(zero).unwrap(), compile(&format!("{zero}, {eight}")).unwrap());
        assert!(both.len() > one.len());
        assert!(matches!(
            compile(&zero.replace("\"index\": 0", "\"index\": 9")),
            Err(FilterError::Library(_))
        ));
    }
}
