//! Which word of the shared memory counts what.

use wharf_app::Manifest;

/// Words at a stripe's start that are of the process, not of a route.
pub(super) const PROCESS_WORDS: usize = 16;

/// Classes of status, from 1xx to 5xx.
pub(super) const CLASSES: usize = 5;

/// Buckets of a route's histogram.
pub(super) const BUCKETS: usize = 18;

/// Members of [`super::Failure`].
pub(super) const FAILURES: usize = 6;

/// Words of a route: its classes, its buckets, the sum of times in
/// microseconds, the sum of bytes, its failures.
const ROUTE_WORDS: usize = CLASSES + BUCKETS + 2 + FAILURES;

/// Words of a cache line, of which two are fetched at once.
const LINE: usize = 16;

/// What is counted for an app: its routes, in how many processes.
#[derive(Debug)]
pub struct Layout {
    app: String,
    /// The patterns of workers.
    workers: Box<[String]>,
    processes: usize,
}

/// What answered a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Route {
    /// Nothing: the request was refused for what it is.
    #[default]
    Refused,
    /// A static file.
    Static,
    /// A redirect.
    Redirect,
    /// Nothing is there.
    NotFound,
    /// This worker of the manifest.
    Worker(u32),
}

/// The routes that every app has.
pub(super) const FIXED: [(Route, &str); 4] = [
    (Route::Refused, "refused"),
    (Route::Static, "static"),
    (Route::Redirect, "redirect"),
    (Route::NotFound, "not_found"),
];

impl Route {
    /// Where its words begin in a stripe.
    pub(super) const fn base(self) -> usize {
        PROCESS_WORDS + ROUTE_WORDS * self.number() as usize
    }

    /// Its number among all routes of the app.
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::Refused => 0,
            Self::Static => 1,
            Self::Redirect => 2,
            Self::NotFound => 3,
            Self::Worker(index) => FIXED.len() as u32 + index,
        }
    }

    /// The route of a number.
    pub(crate) const fn numbered(number: u32) -> Self {
        match number {
            0 => Self::Refused,
            1 => Self::Static,
            2 => Self::Redirect,
            3 => Self::NotFound,
            _ => Self::Worker(number - FIXED.len() as u32),
        }
    }

    /// What logs and metrics call it, if it is no worker's.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Static => "static",
            Self::Redirect => "redirect",
            Self::NotFound => "not_found",
            Self::Worker(_) => "worker",
        }
    }
}

impl Layout {
    /// Of the app `manifest`, served by `processes` processes at most.
    #[must_use]
    pub fn new(manifest: &Manifest, processes: usize) -> Self {
        let workers = manifest.workers.iter().map(|worker| worker.pattern.clone()).collect();
        Self { app: manifest.name.clone(), workers, processes: processes.max(1) }
    }

    /// Words of shared memory, 8 bytes each, that [`super::Metrics::new`] needs.
    #[must_use]
    pub fn words(&self) -> usize {
        self.stripe() * self.processes
    }

    pub(super) fn stripe(&self) -> usize {
        (PROCESS_WORDS + ROUTE_WORDS * (FIXED.len() + self.workers.len())).next_multiple_of(LINE)
    }

    pub(super) const fn processes(&self) -> usize {
        self.processes
    }

    pub(super) fn app(&self) -> &str {
        &self.app
    }

    /// All routes: what they are, and how metrics call them.
    pub(super) fn routes(&self) -> impl Iterator<Item = (Route, &str)> {
        let workers =
            self.workers.iter().zip(0..).map(|(pattern, index)| (Route::Worker(index), pattern.as_str()));
        FIXED.into_iter().chain(workers)
    }
}
