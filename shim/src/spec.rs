//! The runtime spec as libcontainer gets it: containerd's, with the few
//! changes that a container needs to run under it.

use std::fmt::Write as _;
use std::path::Path;

use oci_spec::runtime::{Capabilities, LinuxCapabilities, LinuxNamespaceType, Process, Spec};
use wharf_app::Sha256;

use crate::recognition::{HOST, MANIFEST, Program};
use crate::sys::FIRST_PASSED;

/// Environment variable of the host: `SHA256=FD,…`, precompiled components.
/// It is always set: without it the host would believe the image's own code.
const PRECOMPILED: &str = "WHARF_AOT_FDS";

/// Environment variable of the host: `SHA256`, the plain program to run in
/// place of an app, and `#NAME` if one of its functions is to be called.
const PROGRAM: &str = "WHARF_PROGRAM";

/// Environment variable of the host: the manifest, which must be the one that
/// we have read.
const APP: &str = "WHARF_APP";

/// A spec that can't be run.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum SpecError {
    /// It lacks a part that every Linux container has.
    #[error("runtime spec has no {0}")]
    Missing(&'static str),
}

/// Changes that every container needs.
///
/// # Errors
/// [`SpecError`].
pub(crate) fn prepare(spec: &mut Spec, bundle: &Path) -> Result<(), SpecError> {
    let root = spec.root_mut().as_mut().ok_or(SpecError::Missing("root"))?;
    // libcontainer's bundle, which has this spec, is another folder.
    let path = bundle.join(root.path());
    root.set_path(path);
    if let Some(linux) = spec.linux_mut()
        && let Some(propagation) = linux.rootfs_propagation()
        && let Some(recursive @ ("shared" | "slave" | "private" | "unbindable")) =
            propagation.strip_prefix('r')
    {
        // libcontainer knows these names alone, and means all mounts below.
        let name = recursive.to_owned();
        linux.set_rootfs_propagation(Some(name));
    }
    let process = spec.process_mut().as_mut().ok_or(SpecError::Missing("process"))?;
    close_capabilities(process);
    // The helper has set it as far as it may; libcontainer would fail.
    process.set_oom_score_adj(None);
    // libcontainer takes "false" for a reason to load seccomp's filter late,
    // when the privilege to do so is gone.
    if process.no_new_privileges() == Some(false) {
        process.set_no_new_privileges(None);
    }
    Ok(())
}

/// Has the container run the node's host, which gets the precompiled
/// `components` as descriptors in this order.
///
/// # Errors
/// [`SpecError`].
pub(crate) fn serve_app(spec: &mut Spec, components: &[Sha256]) -> Result<(), SpecError> {
    let process = spec.process_mut().as_mut().ok_or(SpecError::Missing("process"))?;
    let mut arguments = process.args().clone().unwrap_or_default();
    match arguments.first_mut() {
        Some(program) => HOST.clone_into(program),
        None => arguments.push(HOST.to_owned()),
    }
    process.set_args(Some(arguments));

    let mut environment = own_environment(process);
    let mut list = format!("{PRECOMPILED}=");
    for (component, descriptor) in components.iter().zip(FIRST_PASSED..) {
        let comma = if descriptor == FIRST_PASSED { "" } else { "," };
        // Writing to a string can't fail.
        let _ = write!(list, "{comma}{component}={descriptor}");
    }
    environment.push(list);
    environment.push(format!("{APP}={MANIFEST}"));
    process.set_env(Some(environment));
    process.set_no_new_privileges(Some(true));
    Ok(())
}

/// Has the container run a plain program by the node's host, which gets its
/// code as a descriptor. The arguments stay: they are the program's.
///
/// # Errors
/// [`SpecError`].
pub(crate) fn run_program(spec: &mut Spec, program: &Program, component: &Sha256) -> Result<(), SpecError> {
    let process = spec.process_mut().as_mut().ok_or(SpecError::Missing("process"))?;
    let mut arguments = process.args().clone().unwrap_or_default();
    if let Some(first) = arguments.first_mut() {
        first.clone_from(&program.path);
    }
    process.set_args(Some(arguments));
    let mut environment = own_environment(process);
    environment.push(format!("{PRECOMPILED}={component}={FIRST_PASSED}"));
    let function = program.function.as_ref().map(|function| format!("#{function}")).unwrap_or_default();
    environment.push(format!("{PROGRAM}={component}{function}"));
    process.set_env(Some(environment));
    process.set_no_new_privileges(Some(true));
    Ok(())
}

/// The container's environment, but for what only we may tell the host: the
/// image's word is not to be believed.
fn own_environment(process: &Process) -> Vec<String> {
    let mut environment = process.env().clone().unwrap_or_default();
    environment.retain(|entry| !matches!(entry.split('=').next(), Some(PRECOMPILED | APP | PROGRAM)));
    environment
}

/// Makes sets of capabilities that are left out empty ones. libcontainer would
/// leave them as they are: the shim's.
pub(crate) fn close_capabilities(process: &mut Process) {
    let mut sets = process.capabilities().clone().unwrap_or_else(|| {
        let mut none = LinuxCapabilities::default();
        none.set_bounding(None).set_effective(None).set_permitted(None);
        none.set_inheritable(None).set_ambient(None);
        none
    });
    let filled = |set: &Option<Capabilities>| Some(set.clone().unwrap_or_default());
    sets.set_bounding(filled(sets.bounding()));
    sets.set_effective(filled(sets.effective()));
    sets.set_permitted(filled(sets.permitted()));
    sets.set_inheritable(filled(sets.inheritable()));
    sets.set_ambient(filled(sets.ambient()));
    process.set_capabilities(Some(sets));
}

/// Columns and rows that a terminal begins with.
pub(crate) fn console_size(process: &Process) -> Option<(u16, u16)> {
    let size = process.console_size()?;
    let characters = |count: u64| u16::try_from(count).ok().filter(|count| *count > 0);
    Some((characters(size.width())?, characters(size.height())?))
}

/// Whether a `cgroupsPath` is for systemd to make: `slice:prefix:name`. The
/// runtime's options say so too, but only to runc's own runtime type.
pub(crate) fn is_systemd_path(path: &Path) -> bool {
    let mut parts = path.to_str().unwrap_or_default().split(':');
    let slice = parts.next().unwrap_or_default();
    slice.ends_with(".slice") && !slice.contains('/') && parts.count() == 2
}

/// Whether the init process has a pid namespace of its own, whose other
/// processes end with it.
pub(crate) fn has_own_pid_namespace(spec: &Spec) -> bool {
    let linux = spec.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().as_ref());
    let is_own = |namespace: &oci_spec::runtime::LinuxNamespace| {
        namespace.typ() == LinuxNamespaceType::Pid && namespace.path().is_none()
    };
    namespaces.is_some_and(|namespaces| namespaces.iter().any(is_own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_containers_root_is_absolute_and_privileges_are_as_libcontainer_reads_them() {
        let mut spec = Spec::default();
        let process = spec.process_mut().as_mut().unwrap();
        process.set_oom_score_adj(Some(-500)).set_no_new_privileges(Some(false));
        spec.linux_mut().as_mut().unwrap().set_rootfs_propagation(Some("rslave".into()));
        prepare(&mut spec, Path::new("/bundle")).unwrap();
        assert_eq!(spec.root().as_ref().unwrap().path(), Path::new("/bundle/rootfs"));
        assert_eq!(spec.linux().as_ref().unwrap().rootfs_propagation().as_deref(), Some("slave"));
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.oom_score_adj(), None);
        assert_eq!(process.no_new_privileges(), None);
    }

    #[test]
    fn an_app_is_given_host_descriptors_and_no_new_privileges() {
        let mut spec = Spec::default();
        let process = spec.process_mut().as_mut().unwrap();
        process.set_args(Some(vec!["/app/wharf.json".into(), "--quiet".into()]));
        let theirs = vec!["A=b".into(), "WHARF_AOT_FDS=x=9".into()];
        process.set_env(Some(theirs));
        let (one, two) = (Sha256::of(b"1"), Sha256::of(b"2"));
        serve_app(&mut spec, &[one, two]).unwrap();
        let process = spec.process().as_ref().unwrap();
        let arguments = process.args().as_ref().unwrap();
        assert_eq!(arguments, &["/wharf-host", "--quiet"]);
        let environment = process.env().as_ref().unwrap();
        let list = format!("WHARF_AOT_FDS={one}=3,{two}=4");
        let expected = ["A=b".to_owned(), list, "WHARF_APP=/app/wharf.json".to_owned()];
        assert_eq!(environment, &expected);
        assert_eq!(process.no_new_privileges(), Some(true));
    }

    #[test]
    fn a_program_keeps_its_arguments_and_is_given_its_code() {
        let mut spec = Spec::default();
        let process = spec.process_mut().as_mut().unwrap();
        process.set_args(Some(vec!["a.wasm#go".into(), "--flag".into()]));
        process.set_env(Some(vec!["A=b".into(), "WHARF_PROGRAM=other".into()]));
        let (program, code) =
            (Program { path: "/a.wasm".into(), function: Some("go".into()) }, Sha256::of(b"1"));
        run_program(&mut spec, &program, &code).unwrap();
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.args().as_ref().unwrap(), &["/a.wasm", "--flag"]);
        let expected =
            ["A=b".to_owned(), format!("WHARF_AOT_FDS={code}=3"), format!("WHARF_PROGRAM={code}#go")];
        assert_eq!(process.env().as_deref(), Some(&expected[..]));
    }

    #[test]
    fn an_app_without_components_is_given_an_empty_list() {
        let mut spec = Spec::default();
        let process = spec.process_mut().as_mut().unwrap();
        process.set_env(Some(vec!["WHARF_AOT_FDS=x=9".into(), "WHARF_APP=/evil/wharf.json".into()]));
        serve_app(&mut spec, &[]).unwrap();
        let process = spec.process().as_ref().unwrap();
        let expected = ["WHARF_AOT_FDS=".to_owned(), "WHARF_APP=/app/wharf.json".to_owned()];
        assert_eq!(process.env().as_deref(), Some(&expected[..]));
    }

    #[test]
    fn capabilities_that_are_left_out_are_none() {
        let mut process = Process::default();
        let mut sets = LinuxCapabilities::default();
        sets.set_effective(None).set_ambient(None);
        let kept = sets.bounding().clone();
        process.set_capabilities(Some(sets));
        close_capabilities(&mut process);
        let sets = process.capabilities().as_ref().unwrap();
        assert_eq!(sets.effective().as_ref().unwrap().len(), 0);
        assert_eq!(sets.ambient().as_ref().unwrap().len(), 0);
        assert_eq!(*sets.bounding(), kept);
        process.set_capabilities(None);
        close_capabilities(&mut process);
        assert_eq!(process.capabilities().as_ref().unwrap().permitted().as_ref().unwrap().len(), 0);
    }

    #[test]
    fn only_a_slice_with_two_more_parts_is_systemds() {
        assert!(is_systemd_path(Path::new("kubepods-pod1.slice:cri-containerd:abc")));
        assert!(is_systemd_path(Path::new("system.slice:docker:abc")));
        assert!(!is_systemd_path(Path::new("/kubepods/a.slice/abc")));
        assert!(!is_systemd_path(Path::new("/default/abc")));
    }

    #[test]
    fn a_joined_pid_namespace_is_not_its_own() {
        let mut spec = Spec::default();
        assert!(has_own_pid_namespace(&spec));
        let linux = spec.linux_mut().as_mut().unwrap();
        for namespace in linux.namespaces_mut().iter_mut().flatten() {
            namespace.set_path(Some("/proc/1/ns/pid".into()));
        }
        assert!(!has_own_pid_namespace(&spec));
    }
}
