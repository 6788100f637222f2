//! What a build read, so that the next one knows whether anything changed.
//!
//! A compiler that finds its sources by itself (imports, packages) is asked
//! afterwards which they were. The record lies in the cache under a name of
//! what is known before: the project, the workers, the tools.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Sha256;

/// Files and folders as they were when something was built of them.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inputs {
    /// Hashes of the contents; none where there was no such file.
    files: BTreeMap<PathBuf, Option<Sha256>>,
    /// Hashes of the names in folders, where another file would count too.
    folders: BTreeMap<PathBuf, Option<Sha256>>,
}

/// A record: what was made, of what.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The file in the cache.
    made: String,
    inputs: Inputs,
}

impl Inputs {
    /// Takes note of a file, which need not exist.
    ///
    /// # Errors
    /// It is there and can't be read.
    pub(crate) fn file(&mut self, path: &Path) -> io::Result<()> {
        if !self.files.contains_key(path) {
            self.files.insert(path.to_owned(), content(path)?);
        }
        Ok(())
    }

    /// Takes note of which files lie in a folder.
    ///
    /// # Errors
    /// It is there and can't be read.
    pub(crate) fn folder(&mut self, path: &Path) -> io::Result<()> {
        if !self.folders.contains_key(path) {
            self.folders.insert(path.to_owned(), names(path)?);
        }
        Ok(())
    }

    /// Whether everything still is as it was.
    pub(crate) fn are_unchanged(&self) -> bool {
        let same = |found: io::Result<Option<Sha256>>, then: &Option<Sha256>| {
            found.is_ok_and(|found| found == *then)
        };
        self.folders.iter().all(|(path, then)| same(names(path), then))
            && self.files.iter().all(|(path, then)| same(content(path), then))
    }
}

impl Record {
    /// What the record at `path` says was made, if it is still there and nothing
    /// of which it was made has changed.
    pub(crate) fn find(path: &Path) -> Option<PathBuf> {
        let record: Self = serde_json::from_slice(&fs_err::read(path).ok()?).ok()?;
        // A name, never a path: the cache is no secret to other programs of the user.
        let is_name = Path::new(&record.made).file_name() == Some(record.made.as_ref());
        let made = path.with_file_name(&record.made);
        (is_name && made.is_file() && record.inputs.are_unchanged()).then_some(made)
    }

    /// Writes at `path` that the file `made` beside it was made of `inputs`.
    ///
    /// # Errors
    /// It can't be written; nothing is then.
    pub(crate) fn keep(path: &Path, made: String, inputs: Inputs) -> io::Result<()> {
        let record = serde_json::to_vec(&Self { made, inputs }).map_err(io::Error::other)?;
        let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
        file.write_all(&record)?;
        file.persist(path)?;
        Ok(())
    }
}

fn content(path: &Path) -> io::Result<Option<Sha256>> {
    match fs_err::File::open(path) {
        Ok(file) => Ok(Some(Sha256::of_reader(file)?.0)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn names(folder: &Path) -> io::Result<Option<Sha256>> {
    let entries = match fs_err::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let names = entries.map(|entry| Ok(entry?.file_name().into_encoded_bytes()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(Some(Sha256::of(&names.join(&0))))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_holds_until_a_file_changes_appears_or_goes() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs_err::write(at("a"), "1").unwrap();
        fs_err::write(at("made.wasm"), "made").unwrap();
        fs_err::create_dir(at("sources")).unwrap();
        fs_err::write(at("sources/b"), "1").unwrap();
        let record = at("record.json");
        let keep = || {
            let mut inputs = Inputs::default();
            inputs.file(&at("a")).unwrap();
            inputs.file(&at("missing")).unwrap();
            inputs.folder(&at("sources")).unwrap();
            Record::keep(&record, "made.wasm".into(), inputs).unwrap();
            assert_eq!(Record::find(&record), Some(at("made.wasm")));
        };
        let changes: [&dyn Fn(); 5] = [
            &|| fs_err::write(at("a"), "2").unwrap(),
            &|| fs_err::write(at("missing"), "").unwrap(),
            &|| fs_err::write(at("sources/c"), "").unwrap(),
            &|| fs_err::remove_file(at("sources/b")).unwrap(),
            &|| fs_err::remove_file(at("made.wasm")).unwrap(),
        ];
        for change in changes {
            keep();
            change();
            assert_eq!(Record::find(&record), None);
        }
    }

    #[test]
    fn a_record_that_leads_elsewhere_or_is_damaged_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let record = folder.path().join("record.json");
        fs_err::write(folder.path().join("made.wasm"), "").unwrap();
        for text in ["", "{}", r#"{"made":"../x/made.wasm","inputs":{"files":{},"folders":{}}}"#] {
            fs_err::write(&record, text).unwrap();
            assert_eq!(Record::find(&record), None, "{text}");
        }
    }
}
