//! Tools from npm, by the user's own.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use super::{COMPONENTIZE_JS, RUBY_WASM, Release, ToolError, run, tool};
use crate::javascript::{LOCK, PACKAGE};
use crate::language::Language;

/// Every time the same: no scripts of packages, which could do anything.
const ARGUMENTS: [&str; 4] = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];

/// Installs the tools of JavaScript into `folder`. Which release it was.
///
/// Our own release comes by our lock, with the hashes of all packages; others as npm
/// finds what they need.
pub(super) fn install(release: &Release, folder: &Path) -> Result<String, ToolError> {
    let package = tool(Language::JavaScript);
    let wanted = match release {
        Release::Exactly(version) => version.as_str(),
        Release::Latest => "latest",
    };
    let label = format!("{package} {wanted}");
    let mut npm = Command::new("npm");
    npm.args(ARGUMENTS).current_dir(folder);
    let write = |name: &str, text: &str| {
        fs_err::write(folder.join(name), text).map_err(ToolError::io("prepare the installation"))
    };
    let step = if wanted == COMPONENTIZE_JS {
        write("package.json", PACKAGE)?;
        write("package-lock.json", LOCK)?;
        "npm ci"
    } else {
        let mut settings: Value = serde_json::from_str(PACKAGE).unwrap_or_default();
        settings["dependencies"][package] = wanted.into();
        write("package.json", &settings.to_string())?;
        npm.arg("--no-package-lock");
        "npm install"
    };
    npm.arg(step.trim_start_matches("npm "));
    run(&label, step, &mut npm)?;
    version(folder).ok_or_else(|| ToolError::Install {
        tool: label,
        step,
        report: format!("it made no {package} in {}", folder.display()),
        hint: None,
    })
}

/// Installs Ruby into `folder`. Which release it was: there is one.
pub(super) fn install_ruby(release: &Release, folder: &Path) -> Result<String, ToolError> {
    let label = format!("{} {RUBY_WASM}", tool(Language::Ruby));
    match release {
        Release::Exactly(version) if version != RUBY_WASM => {
            return Err(ToolError::Install {
                tool: format!("{} {version}", tool(Language::Ruby)),
                step: "the check of its version",
                report: format!("expected {RUBY_WASM}, the one that this wharf is made for"),
                hint: Some("run `wharf runtimes install ruby`"),
            });
        }
        _ => {}
    }
    fs_err::write(folder.join("package.json"), "{\"private\": true}\n")
        .map_err(ToolError::io("prepare the installation"))?;
    let mut npm = Command::new("npm");
    npm.args(ARGUMENTS).current_dir(folder).args(["--no-package-lock", "install"]);
    npm.arg(format!("{}@{RUBY_WASM}", tool(Language::Ruby)));
    run(&label, "npm install", &mut npm)?;
    Ok(RUBY_WASM.to_owned())
}

fn version(folder: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Package {
        version: String,
    }
    let package = fs_err::read(folder.join(super::proof(Language::JavaScript))).ok()?;
    Some(serde_json::from_slice::<Package>(&package).ok()?.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_lock_is_of_our_release_and_names_no_registry() {
        let settings: Value = serde_json::from_str(PACKAGE).unwrap();
        assert_eq!(settings["dependencies"][tool(Language::JavaScript)], COMPONENTIZE_JS);
        let lock: Value = serde_json::from_str(LOCK).unwrap();
        let packages = lock["packages"].as_object().unwrap();
        for (name, package) in packages.iter().filter(|(name, _)| !name.is_empty()) {
            assert!(package["integrity"].is_string() && package.get("resolved").is_none(), "{name}");
        }
    }
}
