//! Files of ours that go into what users build: guests' runtimes, and their WIT.

use std::io;
use std::path::Path;

use include_dir::{Dir, File};

/// What runtimes are made of; editors and interpreters leave other things there.
const KINDS: [&str; 6] = ["js", "json", "mjs", "py", "rb", "wit"];

/// The files of `dir`, sorted by path.
pub(crate) fn files(dir: &Dir<'static>) -> Vec<&'static File<'static>> {
    fn collect(dir: &Dir<'static>, files: &mut Vec<&'static File<'static>>) {
        let entries: &'static [_] = dir.entries();
        for entry in entries {
            match entry {
                include_dir::DirEntry::Dir(dir) => collect(dir, files),
                include_dir::DirEntry::File(file) => files.push(file),
            }
        }
    }

    let mut files = Vec::new();
    collect(dir, &mut files);
    files.retain(|file| KINDS.iter().any(|kind| file.path().extension().is_some_and(|end| end == *kind)));
    files.sort_by_key(|file| file.path());
    files
}

/// Writes the files of `dir` below `folder`.
pub(crate) fn write(dir: &Dir<'static>, folder: &Path) -> io::Result<()> {
    for file in files(dir) {
        let path = folder.join(file.path());
        fs_err::create_dir_all(path.parent().unwrap_or(folder))?;
        fs_err::write(path, file.contents())?;
    }
    Ok(())
}
