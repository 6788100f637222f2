//! Which devices a container may use, by cgroup v2.
//!
//! cgroup v1 has a controller for that, which libcontainer sets. Version 2 has a
//! program of the kernel's own virtual machine in its place (cgroup-v2.rst,
//! "Device controller"), for which libcontainer would need libbpf and libelf:
//! without it every container with CAP_MKNOD could have every disk. The program
//! is a list of comparisons, made here.

use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, Spec};

use crate::cgroup::Cgroup;
use crate::sys;

/// One instruction: `struct bpf_insn` of linux/bpf.h, eight bytes.
pub(crate) type Instruction = u64;

/// Permission to make a node for a device: `BPF_DEVCG_ACC_MKNOD`.
const MKNOD: u32 = 1;
/// `BPF_DEVCG_ACC_READ`.
const READ: u32 = 2;
/// `BPF_DEVCG_ACC_WRITE`.
const WRITE: u32 = 4;

/// `BPF_DEVCG_DEV_BLOCK`.
const BLOCK: u32 = 1;
/// `BPF_DEVCG_DEV_CHAR`.
const CHARACTER: u32 = 2;

/// Character devices that every container has, as runc gives them: null, zero,
/// full, random, urandom, tty, ptmx and all pseudo terminals.
const ALWAYS: [(u32, Option<u32>); 8] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(2)),
    (136, None),
];

/// What is allowed or denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    allow: bool,
    /// `None`: of both.
    kind: Option<u32>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

/// The console of the machine, which libcontainer allows every container by
/// version 1, as runc does not. A container's own `/dev/console` is a terminal.
const CONSOLE: &str = "c 5:1 rwm";

/// Limits the container in `cgroup` to the devices of its spec, if nothing else
/// does: cgroup v1 has limited it already, if the machine has that.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn limit(spec: &Spec, cgroup: &Cgroup) -> io::Result<()> {
    let has = |folder: &Path, file: &str| folder.join(file).exists();
    if let Some(folder) = cgroup.folders().iter().find(|folder| has(folder, "devices.list")) {
        let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        let devices = resources.and_then(|resources| resources.devices().as_ref());
        let asked = |device: &LinuxDeviceCgroup| {
            device.allow()
                && matches!(
                    (device.major(), device.minor()),
                    (None | Some(-1), _) | (Some(5), None | Some(-1 | 1))
                )
        };
        if devices.is_some_and(|devices| !devices.iter().any(asked)) {
            fs_err::write(folder.join("devices.deny"), CONSOLE)?;
        }
        return Ok(());
    }
    let Some(folder) = cgroup.folders().iter().find(|folder| has(folder, "cgroup.controllers")) else {
        return Ok(());
    };
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let devices = resources.and_then(|resources| resources.devices().as_ref());
    let Some(devices) = devices else {
        // A spec that says nothing leaves all as it is.
        return Ok(());
    };
    attach(&rules(devices), folder)
}

fn attach(rules: &[Rule], folder: &PathBuf) -> io::Result<()> {
    let folder = fs_err::File::open(folder)?;
    let program = sys::load_device_program(&program(rules))?;
    sys::attach_device_program(&folder, &program)
}

/// The rules in order: of those that match, the last one counts.
fn rules(devices: &[LinuxDeviceCgroup]) -> Vec<Rule> {
    let mut rules: Vec<_> = devices.iter().filter_map(rule).collect();
    let any = Rule { allow: true, kind: None, major: None, minor: None, access: MKNOD };
    // A node is of no use to who may not open it.
    rules.push(any);
    let access = MKNOD | READ | WRITE;
    rules.extend(ALWAYS.map(|(major, minor)| Rule {
        kind: Some(CHARACTER),
        major: Some(major),
        minor,
        access,
        ..any
    }));
    rules
}

/// Nothing if it is of no device: -1 stands for any, and a number that no
/// device has for none.
fn rule(device: &LinuxDeviceCgroup) -> Option<Rule> {
    let number = |number: Option<i64>| match number {
        None | Some(-1) => Some(None),
        Some(number) => Some(Some(u32::try_from(number).ok()?)),
    };
    let letters = device.access().as_deref().unwrap_or("rwm");
    let bit = |letter: char, bit: u32| if letters.contains(letter) { bit } else { 0 };
    Some(Rule {
        allow: device.allow(),
        kind: match device.typ() {
            Some(LinuxDeviceType::B) => Some(BLOCK),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(CHARACTER),
            Some(LinuxDeviceType::P) => return None,
            Some(LinuxDeviceType::A) | None => None,
        },
        major: number(device.major())?,
        minor: number(device.minor())?,
        access: bit('m', MKNOD) | bit('r', READ) | bit('w', WRITE),
    })
}

/// Registers: 0 is the result, 1 points to `struct bpf_cgroup_dev_ctx`.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// Opcodes of linux/bpf_common.h and linux/bpf.h.
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_IF_EQUAL: u8 = 0x15;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

/// The rules as a program, which gives 1 to allow.
fn program(rules: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![
        load(KIND, 0),
        instruction(MOVE_REGISTER, ACCESS, KIND, 0, 0),
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        let mut checks = Vec::new();
        for (register, wanted) in [(KIND, rule.kind), (MAJOR, rule.major), (MINOR, rule.minor)] {
            if let Some(wanted) = wanted {
                checks.push((JUMP_UNLESS_EQUAL, register, wanted, None));
            }
        }
        // Allowed is what asks for nothing else; denied is what asks for any of it.
        let all = MKNOD | READ | WRITE;
        if rule.allow && rule.access != all {
            checks.push((JUMP_UNLESS_EQUAL, SCRATCH, 0, Some(all & !rule.access)));
        } else if !rule.allow && rule.access != all {
            checks.push((JUMP_IF_EQUAL, SCRATCH, 0, Some(rule.access)));
        }
        let is_last = checks.is_empty();
        let mut length: i16 = checks.iter().map(|(.., mask)| if mask.is_some() { 3 } else { 1 }).sum();
        // And the two that answer.
        length += 2;
        for (jump, register, wanted, mask) in checks {
            if let Some(mask) = mask {
                program.push(instruction(MOVE_REGISTER, SCRATCH, ACCESS, 0, 0));
                program.push(instruction(AND, SCRATCH, 0, 0, mask));
                length -= 2;
            }
            length -= 1;
            program.push(instruction(jump, register, 0, length, wanted));
        }
        program.push(instruction(MOVE, RESULT, 0, 0, u32::from(rule.allow)));
        program.push(instruction(EXIT, 0, 0, 0, 0));
        if is_last {
            // It matches all: the kernel refuses what is never reached.
            return program;
        }
    }
    program.push(instruction(MOVE, RESULT, 0, 0, 0));
    program.push(instruction(EXIT, 0, 0, 0, 0));
    program
}

fn load(register: u8, offset: i16) -> Instruction {
    instruction(LOAD_WORD, register, CONTEXT, offset, 0)
}

fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: u32) -> Instruction {
    let [low, high] = offset.to_ne_bytes();
    let [a, b, c, d] = immediate.to_ne_bytes();
    // Two registers of four bits; their order is the machine's byte order.
    let registers =
        if cfg!(target_endian = "little") { source << 4 | destination } else { destination << 4 | source };
    u64::from_ne_bytes([code, registers, low, high, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn device(json: &str) -> LinuxDeviceCgroup {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_spec_becomes_rules() {
        let deny = rule(&device(r#"{"allow":false,"access":"rwm"}"#)).unwrap();
        assert_eq!(deny, Rule { allow: false, kind: None, major: None, minor: None, access: 7 });
        let fuse =
            rule(&device(r#"{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}"#)).unwrap();
        assert_eq!(fuse.kind, Some(CHARACTER));
        assert_eq!((fuse.major, fuse.minor, fuse.access), (Some(10), Some(229), READ | WRITE));
        let any = rule(&device(r#"{"allow":true,"type":"b","major":8,"minor":-1}"#)).unwrap();
        assert_eq!((any.kind, any.minor, any.access), (Some(BLOCK), None, 7));
        assert_eq!(rule(&device(r#"{"allow":true,"type":"b","major":-2}"#)), None);
    }

    /// What the program answers, by a machine that knows its few instructions.
    fn answer(rules: &[Rule], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let program = program(rules);
        let (mut registers, mut next) = ([0_u64; 11], 0_usize);
        for _ in 0..10_000 {
            let [code, pair, low, high, a, b, c, d] = program[next].to_ne_bytes();
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            let offset = i16::from_ne_bytes([low, high]);
            let immediate = u64::from(u32::from_ne_bytes([a, b, c, d]));
            next += 1;
            let mut jump = |on: bool| next = if on { next + usize::try_from(offset).unwrap() } else { next };
            match code {
                LOAD_WORD => {
                    registers[to] =
                        [access << 16 | kind, major, minor][usize::try_from(offset).unwrap() / 4].into();
                }
                MOVE => registers[to] = immediate,
                MOVE_REGISTER => registers[to] = registers[from],
                AND => registers[to] &= immediate,
                SHIFT_RIGHT => registers[to] >>= immediate,
                JUMP_IF_EQUAL => jump(registers[to] == immediate),
                JUMP_UNLESS_EQUAL => jump(registers[to] != immediate),
                EXIT => return registers[0] == 1,
                other => panic!("instruction {other:#x}"),
            }
        }
        panic!("it does not end");
    }

    #[test]
    fn the_last_rule_that_matches_counts() {
        let rules = rules(&[
            device(r#"{"allow":false,"access":"rwm"}"#),
            device(r#"{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}"#),
            device(r#"{"allow":true,"type":"b","major":8,"access":"r"}"#),
            device(r#"{"allow":false,"type":"b","major":8,"minor":1,"access":"r"}"#),
        ]);
        let allows = |kind, access, major, minor| answer(&rules, kind, access, major, minor);
        assert!(allows(CHARACTER, READ | WRITE, 1, 3), "/dev/null");
        assert!(allows(CHARACTER, READ | WRITE, 136, 7), "a terminal");
        assert!(allows(CHARACTER, READ | WRITE, 10, 229));
        assert!(!allows(CHARACTER, READ, 10, 228));
        assert!(allows(BLOCK, READ, 8, 0));
        assert!(!allows(BLOCK, READ | WRITE, 8, 0), "only reading is allowed");
        assert!(!allows(BLOCK, READ, 8, 1));
        assert!(!allows(BLOCK, READ | MKNOD, 253, 0));
        assert!(allows(BLOCK, MKNOD, 253, 0), "a node alone is harmless");
        assert!(!answer(&[], CHARACTER, READ, 1, 3));
    }

    /// By the kernel, where there are the privileges and a cgroup v2, be it
    /// beside version 1.
    #[test]
    fn the_kernel_takes_the_program_and_obeys_it() {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let Some(tree) = mounts.find(|fields| fields[2] == "cgroup2").map(|fields| PathBuf::from(fields[1]))
        else {
            return;
        };
        let folder = tree.join(format!("wharf-devices-{}", std::process::id()));
        if std::fs::create_dir(&folder).is_err() {
            return;
        }
        let opens = |path: &str| {
            let script = format!("echo $$ >{}/cgroup.procs && exec 3<{path}", folder.display());
            Command::new("sh").args(["-c", &script]).output().unwrap().status.success()
        };
        let (full, kmsg) = ("/dev/full", "/dev/kmsg");
        let before = [full, kmsg].map(opens);
        let attached = attach(&rules(&[device(r#"{"allow":false,"access":"rwm"}"#)]), &folder);
        let after = [full, kmsg].map(opens);
        std::fs::remove_dir(&folder).unwrap();
        if attached.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EPERM)) {
            return;
        }
        attached.unwrap();
        assert_eq!((before, after), ([true, true], [true, false]));
    }
}
