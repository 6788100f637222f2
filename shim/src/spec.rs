//! The runtime spec as libcontainer gets it: containerd's, with the few
//! changes that a container needs to run under it.

use std::fmt::Write as _;
use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use wharf_app::Sha256;

use crate::recognition::{HOST, MANIFEST};
use crate::sys::FIRST_PASSED;

/// Environment variable of the host: `SHA256=FD,…`, precompiled components.
/// It is always set: without it the host would believe the image's own code.
const PRECOMPILED: &str = "WHARF_AOT_FDS";

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
    let process = spec.process_mut().as_mut().ok_or(SpecError::Missing("process"))?;
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

    let mut environment = process.env().clone().unwrap_or_default();
    // Only we name descriptors and manifest: the image's word is not to be
    // believed.
    environment.retain(|entry| !matches!(entry.split('=').next(), Some(PRECOMPILED | APP)));
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
        prepare(&mut spec, Path::new("/bundle")).unwrap();
        assert_eq!(spec.root().as_ref().unwrap().path(), Path::new("/bundle/rootfs"));
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
