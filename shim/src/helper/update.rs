//! New limits for a container that runs.

use libcgroups::common::{
    AnyManagerError, CgroupConfig, CgroupManager, ControllerOpt, CreateCgroupSetupError,
    create_cgroup_manager,
};
use libcontainer::utils::get_cgroup_path;
use oci_spec::runtime::LinuxResources;

use super::{Answer, Failure, UpdateRequest};
use crate::bundle::{Bundle, BundleError};

/// Why limits can't be set.
#[derive(Debug, thiserror::Error)]
enum UpdateError {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("cannot read the new limits")]
    Resources(#[source] serde_json::Error),
    #[error("cannot use the container's cgroup")]
    Manager(#[from] CreateCgroupSetupError),
    #[error("cannot set the new limits")]
    Apply(#[from] AnyManagerError),
}

/// Sets those that are given; the others stay.
pub(super) fn update(request: &UpdateRequest) -> Result<Answer, Failure> {
    try_update(request).map_err(|error| Failure::from_error(&error))?;
    Ok(Answer::Done)
}

fn try_update(request: &UpdateRequest) -> Result<(), UpdateError> {
    let resources: LinuxResources =
        serde_json::from_str(&request.resources).map_err(UpdateError::Resources)?;
    let bundle = Bundle::new(&request.bundle);
    let path = bundle.load_edited_spec()?.linux().as_ref().and_then(|linux| linux.cgroups_path().clone());
    let systemd_cgroup = bundle.load_record()?.systemd_cgroup;
    let manager = create_cgroup_manager(CgroupConfig {
        cgroup_path: get_cgroup_path(&path, &request.id),
        systemd_cgroup,
        container_name: request.id.clone(),
    })?;
    manager.apply(&ControllerOpt {
        resources: &resources,
        disable_oom_killer: resources
            .memory()
            .is_some_and(|memory| memory.disable_oom_killer() == Some(true)),
        oom_score_adj: None,
        freezer_state: None,
    })?;
    Ok(())
}
