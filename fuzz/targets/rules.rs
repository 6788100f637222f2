//! `_headers` and `_redirects`, by a NUL between them: they are refused with a
//! reason, or make an app that can be read and whose routes can be asked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_fuzz::project;

fuzz_target!(|input: &[u8]| {
    let end = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
    let (headers, redirects) = (&input[..end], input.get(end + 1..).unwrap_or_default());
    project::build(&[
        ("public/_headers", headers),
        ("public/_redirects", redirects),
        ("public/index.html", b"<p>"),
        ("public/docs/index.html", b"<p>"),
    ]);
});
