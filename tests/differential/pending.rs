//! What wharf does not do yet, by the first column's words.
//!
//! A case that is listed and passes fails the run, too: it is to be taken off.

/// The cases.
pub(crate) const CASES: &[&str] = &[
    // Static files: conditions, ranges, caching, `_headers`, `_redirects`.
    "`If-Match` with another tag",
    "`If-Match` with a weak tag never matches",
    "`If-Match` comes before `If-None-Match`",
    "The unit in another case",
    "Two ranges",
    "Two ranges with spaces and an empty element",
    "Two ranges of which one is past the end",
    "Two ranges, both past the end",
    "A page is asked for again",
    "A name with a hash of its content is kept",
    "A version number is no hash",
    "`_headers` adds a field",
    "`_headers` wins over the server's own",
    "Rules of `_headers` are merged",
    "`!` of `_headers` removes a field",
    "`:name` of `_headers` stands for a segment",
    "`_headers` is not served",
    "`_redirects` is not served",
    "`_redirects`: 301",
    "`_redirects`: 302",
    "`_redirects`: 303",
    "`_redirects`: 307",
    "`_redirects`: 308",
    "A redirect to another site",
    "A redirect with a query of its own",
    "The request's query is passed on",
    "A redirect with `:name`",
    "A redirect with `:splat`",
    "`:splat` is no way to another site",
    "A rewrite of `_redirects`",
    "A path of 16 KiB",
    "`OPTIONS *`",
    // hyper refuses minor versions that it does not know.
    "HTTP/1.2 is answered as 1.1",
];
