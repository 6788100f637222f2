//! A project's files that go into the component of a language's workers.

use crate::language::Language;
use crate::project::Project;
use crate::toolchain::ToolError;

/// Paths below the project, and contents.
pub(crate) type Sources = Vec<(String, Vec<u8>)>;

/// All files of `project` but those with an extension of `foreign`.
///
/// # Errors
/// [`ToolError`]: one can't be read, or they have more than `most` bytes together.
pub(crate) fn read(
    project: &Project,
    language: Language,
    (foreign, most): (&[&str], u64),
) -> Result<Sources, ToolError> {
    let extension = |path: &str| path.rsplit_once('.').map_or(String::new(), |(_, end)| end.to_owned());
    let mut left = most;
    let mut sources = Sources::new();
    for path in project.files().iter().filter(|path| !foreign.contains(&extension(path).as_str())) {
        let content = fs_err::read(project.dir().join(path)).map_err(ToolError::io("read a source"))?;
        left = left.checked_sub(content.len() as u64).ok_or_else(|| ToolError::Source {
            language,
            report: format!(
                "the project's files have more than {} MiB together, at {path:?}: they go into the component",
                most >> 20
            ),
            hint: Some("move what is served as it is to public/, and mount what workers read".into()),
        })?;
        sources.push((path.clone(), content));
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_other_languages_stay_out_and_too_much_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in [("index.py", "a"), ("notes", "bc"), ("x.wasm", "not read")] {
            fs_err::write(folder.path().join(name), content).unwrap();
        }
        let project = Project::open(folder.path()).unwrap();
        let read = |most| read(&project, Language::Python, (&["wasm"], most));
        let names: Vec<String> = read(3).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["index.py", "notes"]);
        let error = read(2).unwrap_err();
        assert!(error.to_string().contains("\"notes\"") && error.hint().is_some(), "{error}");
    }
}
