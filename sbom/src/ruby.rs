//! Gems, as Bundler puts them beside a project's sources.

use std::path::Path;

use walkdir::WalkDir;

use crate::package::{Package, read};

/// Largest specification, in bytes; most have a list of their files.
const LARGEST_SPECIFICATION: u64 = 4 << 20;

/// The gems below `vendor/bundle` of the project, which go into its component.
pub(crate) fn vendored(project: &Path) -> Vec<Package> {
    // `vendor/bundle/ruby/3.4.0/specifications/rack-3.1.8.gemspec`, or right below.
    let entries = WalkDir::new(project.join("vendor/bundle")).max_depth(4).sort_by_file_name();
    let files = entries.into_iter().filter_map(Result::ok).filter(|entry| entry.file_type().is_file());
    let specifications = files.filter(|entry| {
        let folder = entry.path().parent().and_then(Path::file_name);
        folder.is_some_and(|name| name == "specifications")
            && entry.path().extension().is_some_and(|extension| extension == "gemspec")
    });
    specifications.filter_map(|entry| specified(entry.path())).collect()
}

/// The gem of a specification that RubyGems wrote: its first lines have name and version.
fn specified(file: &Path) -> Option<Package> {
    let content = read(file, LARGEST_SPECIFICATION)
        .inspect_err(|error| tracing::warn!(file = %file.display(), %error, "not in the SBOM"))
        .ok()?;
    let content = String::from_utf8_lossy(&content);
    let stub = content.lines().take(4).find_map(|line| line.strip_prefix("# stub: "))?;
    let mut words = stub.split(' ');
    Package::gem(words.next()?, words.next()?)
}
