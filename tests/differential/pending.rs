//! What wharf does not do yet, by the first column's words.
//!
//! A case that is listed and passes fails the run, too: it is to be taken off.

/// The cases.
pub(crate) const CASES: &[&str] = &[
    // hyper refuses minor versions that it does not know.
    "HTTP/1.2 is answered as 1.1",
];
