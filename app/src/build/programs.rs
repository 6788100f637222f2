//! The workers' programs, made of their sources: each language beside the others.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use super::{BuildError, Progress, Step, Workshop};
use crate::digest::Sha256;
use crate::language::Language;
use crate::lock::Lock;
use crate::project::{Origin, Project, WorkerSource};
use crate::{command, go, javascript, python, ruby};

/// Where the programs lie that had to be made.
pub(super) struct Programs {
    /// Components of all workers of a language.
    pub(super) shared: BTreeMap<Language, PathBuf>,
    /// Programs of one worker, by its name.
    single: BTreeMap<String, PathBuf>,
    /// What they were made with.
    pub(super) lock: Lock,
}

/// What can be made beside all else.
enum Job<'a> {
    Shared(Language, BTreeMap<&'a str, &'a str>),
    Single(&'a WorkerSource),
}

/// What a job has made.
enum Made {
    Shared(Language, PathBuf),
    Single(String, PathBuf),
}

impl Programs {
    /// Makes all programs of `project` that are not in the cache.
    ///
    /// Languages are built side by side; the programs of one, such as Go's, one
    /// after the other, since their compilers use all cores by themselves.
    pub(super) fn make(
        project: &Project,
        workshop: &Workshop,
        progress: &(dyn Fn(Progress<'_>) + Sync),
    ) -> Result<Self, BuildError> {
        let maker = Maker { project, workshop, progress, lock: Mutex::new(project.lock().clone()) };
        let lanes = lanes(project);
        let made: Vec<Result<Vec<Made>, BuildError>> = thread::scope(|scope| {
            let lane = |jobs: Vec<Job<'_>>| jobs.iter().map(|job| maker.make(job)).collect();
            let running: Vec<_> = lanes.into_values().map(|jobs| scope.spawn(move || lane(jobs))).collect();
            let ended = running.into_iter().map(|lane| match lane.join() {
                Ok(made) => made,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            ended.collect()
        });
        let (mut shared, mut single) = (BTreeMap::new(), BTreeMap::new());
        for made in made {
            for made in made? {
                match made {
                    Made::Shared(language, path) => _ = shared.insert(language, path),
                    Made::Single(worker, path) => _ = single.insert(worker, path),
                }
            }
        }
        let lock = maker.lock.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        if lock != *project.lock() {
            lock.write(project.dir())?;
        }
        Ok(Self { shared, single, lock })
    }

    /// The program of a worker that has one of its own.
    pub(super) fn of(&self, project: &Project, source: &WorkerSource) -> PathBuf {
        self.single.get(&source.name).cloned().unwrap_or_else(|| project.dir().join(&source.path))
    }
}

/// Jobs by what is built side by side.
fn lanes(project: &Project) -> BTreeMap<(Language, bool), Vec<Job<'_>>> {
    let mut lanes: BTreeMap<_, Vec<Job<'_>>> = BTreeMap::new();
    for source in project.workers() {
        let lane = lanes.entry((source.language, source.origin == Origin::Registry)).or_default();
        let worker = (source.name.as_str(), source.path.as_str());
        match (source.language, lane.last_mut()) {
            (language, Some(Job::Shared(_, workers))) if is_shared(language) => {
                workers.insert(worker.0, worker.1);
            }
            (language, _) if is_shared(language) => lane.push(Job::Shared(language, [worker].into())),
            _ => lane.push(Job::Single(source)),
        }
    }
    lanes
}

/// Whether all workers of a language share one component, and so its interpreter.
fn is_shared(language: Language) -> bool {
    matches!(language, Language::Python | Language::JavaScript | Language::Ruby)
}

struct Maker<'a> {
    project: &'a Project,
    workshop: &'a Workshop,
    progress: &'a (dyn Fn(Progress<'_>) + Sync),
    /// As it will be written.
    lock: Mutex<Lock>,
}

impl Maker<'_> {
    fn make(&self, job: &Job<'_>) -> Result<Made, BuildError> {
        let (project, workshop) = (self.project, self.workshop);
        Ok(match job {
            Job::Shared(language, workers) => {
                let path =
                    self.step(&Step::Componentize(*language, workers.len()), |begin| match language {
                        Language::Ruby => ruby::build(project, workers, workshop, begin),
                        Language::JavaScript => javascript::componentize(project, workers, workshop, begin),
                        _ => python::componentize(project, workers, workshop, (&self.lock, begin)),
                    })?;
                Made::Shared(*language, path)
            }
            Job::Single(source) => {
                let settings = project.config().workers.get(&source.name);
                let build = settings.and_then(|settings| settings.build.as_ref());
                let path = match (source.language, source.origin, build) {
                    (Language::Go, ..) => self.step(&Step::Componentize(Language::Go, 1), |begin| {
                        go::build(project, source, workshop, begin)
                    })?,
                    (_, Origin::Registry, _) => self.fetch(source)?,
                    (_, _, Some(build)) => self.step(&Step::Command(source.name.clone()), |begin| {
                        command::build(project, &source.name, (build, &source.path), workshop, begin)
                    })?,
                    _ => project.dir().join(&source.path),
                };
                Made::Single(source.name.clone(), path)
            }
        })
    }

    /// Does `work`, which says when it begins with what takes long.
    fn step<T, E>(&self, step: &Step, work: impl FnOnce(&dyn Fn()) -> Result<T, E>) -> Result<T, E> {
        let begun = std::cell::Cell::new(false);
        let begin = || {
            begun.set(true);
            (self.progress)(Progress::Begins(step));
        };
        let done = work(&begin);
        if begun.get() {
            (self.progress)(Progress::Ended(step));
        }
        done
    }

    /// The component in a registry, from the cache if the project knows its digest
    /// and it was fetched before.
    fn fetch(&self, source: &WorkerSource) -> Result<PathBuf, BuildError> {
        let reference = &source.path;
        let failed = |error| BuildError::Fetch {
            worker: source.name.clone(),
            reference: reference.clone(),
            source: error,
        };
        let known = match reference.split_once('@') {
            Some((_, digest)) => Some(digest),
            None => self.project.lock().component(reference),
        };
        let cache = self.workshop.components();
        let kept = |digest: &str| cache.join(format!("registry-{}.wasm", Sha256::of(digest.as_bytes())));
        if let Some(path) = known.map(kept)
            && path.is_file()
        {
            return Ok(path);
        }
        let (wasm, digest) = self
            .step(&Step::Fetch(reference.clone()), |begin| {
                begin();
                self.workshop.registry.fetch(reference, known)
            })
            .map_err(failed)?;
        let path = kept(&digest);
        keep(&path, &wasm).map_err(BuildError::Cache)?;
        if !reference.contains('@') {
            let mut lock = self.lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            lock.fix_component(reference, &digest);
        }
        Ok(path)
    }
}

/// Writes `component` to `path`, whole or not at all.
fn keep(path: &Path, component: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs_err::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(component)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
