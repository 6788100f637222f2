//! Media types, caching, codings.

use crate::case::{Case, Check::*};

/// The media type of a file of each kind that a Wasm site has.
pub(crate) fn media_types() -> Vec<Case> {
    let of = |behaviour, clause, path: &str, media_type| {
        Case::get(behaviour, clause, path, &[], &[200]).and(Starts("content-type", media_type)).left_open()
    };
    vec![
        of("Text says its charset", "RFC 9110, 8.3.2", "/digits.txt", "text/plain; charset=utf-8"),
        of("`.html`", "RFC 9110, 8.3", "/", "text/html; charset=utf-8"),
        of("`.js`", "RFC 9239, 6", "/app.js", "text/javascript"),
        of("`.mjs`", "RFC 9239, 6", "/module.mjs", "text/javascript"),
        of("`.wasm`", "WebAssembly Web API", "/program.wasm", "application/wasm"),
        of("`.ipynb`", "Jupyter", "/notebook.ipynb", "application/"),
        of("`.webmanifest`", "W3C", "/app.webmanifest", "application/manifest+json"),
        of("`.map`", "ECMA-426", "/app.js.map", "application/json"),
        of("`.svg`", "W3C", "/image.svg", "image/svg+xml"),
        of("`.woff2`", "RFC 8081", "/font.woff2", "font/woff2"),
    ]
}

/// RFC 9110, 12.5.3; `/app.js` has forms in br, zstd and gzip.
pub(crate) fn codings() -> Vec<Case> {
    let get = |behaviour, accept: &str, statuses: &[u16]| {
        let field = format!("Accept-Encoding: {accept}");
        Case::get(behaviour, "RFC 9110, 12.5.3", "/app.js", &[&field], statuses)
    };
    let is = |coding| Field("content-encoding", coding);
    vec![
        Case::get("Nothing is asked: the file as it is", "RFC 9110, 12.5.3", "/app.js", &[], &[200])
            .and(Lacks("content-encoding"))
            .and(Content("app.js")),
        get("`gzip`", "gzip", &[200]).and(is("gzip")).and(Content("app.js")),
        Case::get(
            "A choice is told by `Vary`",
            "RFC 9110, 12.5.5",
            "/app.js",
            &["Accept-Encoding: gzip"],
            &[200],
        )
        .and(Lists("vary", &["accept-encoding"])),
        Case::get("Also where nothing was asked", "RFC 9110, 12.5.5", "/app.js", &[], &[200])
            .and(Lists("vary", &["accept-encoding"])),
        get("`br`", "br", &[200]).and(is("br")).and(Content("app.js")).left_open(),
        get("`zstd`", "zstd", &[200]).and(is("zstd")).and(Content("app.js")).left_open(),
        get("A coding has no case", "GZip", &[200]).and(is("gzip")).left_open(),
        get("A weight of 0 forbids", "gzip;q=0", &[200]).and(Lacks("content-encoding")),
        get("The highest weight wins", "gzip;q=1.0, br;q=0.5, zstd;q=0.2", &[200]).and(is("gzip")),
        get("`identity` may weigh more", "identity, gzip;q=0.5, br;q=0.5, zstd;q=0.5", &[200])
            .and(Lacks("content-encoding"))
            .left_open(),
        get("`*` is any coding", "*", &[200]).and(Has("content-encoding")).and(Content("app.js")).left_open(),
        get("`*;q=0` forbids what is not named", "gzip, *;q=0", &[200]).and(is("gzip")).left_open(),
        get("`identity;q=0` with a coding", "gzip, identity;q=0", &[200]).and(is("gzip")).left_open(),
        get("`identity;q=0` alone", "identity;q=0", &[200, 406]).left_open(),
        get("A coding that is not there", "compress", &[200]).and(Lacks("content-encoding")),
        get("An empty field", "", &[200]).and(Lacks("content-encoding")),
        Case::get(
            "A file too short to pay",
            "custom",
            "/digits.txt",
            &["Accept-Encoding: gzip, br, zstd"],
            &[200],
        )
        .and(Lacks("content-encoding")),
        Case::get(
            "Each form has a tag of its own",
            "RFC 9110, 8.8.3.3",
            "/app.js",
            &["Accept-Encoding: gzip"],
            &[200],
        )
        .knowing("/app.js", "")
        .and(OtherTag),
        Case::get(
            "The tag of a form is known again",
            "RFC 9110, 8.8.3.3",
            "/app.js",
            &["Accept-Encoding: gzip", "If-None-Match: {tag}"],
            &[304],
        )
        .knowing("/app.js", "gzip")
        .and(Lists("vary", &["accept-encoding"])),
        Case::method(
            "`HEAD` shows the form that `GET` would get",
            "RFC 9110, 9.3.2",
            "HEAD",
            "/app.js",
            &["Accept-Encoding: gzip"],
            &[200],
        )
        .and(is("gzip")),
        Case::get("A sibling has no address", "design", "/app.js.gz", &[], &[404]),
    ]
}

/// RFC 9111, 5.2.2, as Cloudflare Pages and Vite's users set it.
pub(crate) fn caching() -> Vec<Case> {
    let fresh = "public, max-age=0, must-revalidate";
    vec![
        Case::get("A page is asked for again", "RFC 9111, 5.2.2.2", "/about", &[], &[200])
            .and(Field("cache-control", fresh))
            .left_open(),
        Case::get(
            "A name with a hash of its content is kept",
            "RFC 8246, 2",
            "/assets/app.3f2a1b9c.js",
            &[],
            &[200],
        )
        .and(Field("cache-control", "public, max-age=31536000, immutable"))
        .left_open(),
        Case::get("A version number is no hash", "design", "/jquery-3.7.1.min.js", &[], &[200])
            .and(Field("cache-control", fresh)),
        Case::get(
            "A `304` says it as the `200` does",
            "RFC 9110, 15.4.5",
            "/digits.txt",
            &["If-None-Match: {tag}"],
            &[304],
        )
        .knowing("/digits.txt", "")
        .and(Same("cache-control")),
    ]
}

/// `_headers` and `_redirects`.
pub(crate) fn settings() -> Vec<Case> {
    let get =
        |behaviour, path: &str, statuses: &[u16]| Case::get(behaviour, "Pages, Netlify", path, &[], statuses);
    let moved = |behaviour, path: &str, status, location| {
        get(behaviour, path, &[status]).and(EndsIn("location", location))
    };
    vec![
        get("`_headers` adds a field", "/headers/one.txt", &[200]).and(Field("x-one", "first")),
        get("`_headers` wins over the server's own", "/headers/one.txt", &[200])
            .and(Field("cache-control", "no-store")),
        get("Rules of `_headers` are merged", "/headers/merged.txt", &[200])
            .and(Field("x-one", "first, second")),
        get("`!` of `_headers` removes a field", "/headers/without.txt", &[200])
            .and(Lacks("x-one"))
            .and(Field("x-two", "2")),
        get("`:name` of `_headers` stands for a segment", "/headers/ada/named.txt", &[200])
            .and(Field("x-name", "it is ada")),
        get("A rule of `_headers` is for its paths alone", "/digits.txt", &[200]).and(Lacks("x-one")),
        get("`_headers` is not served", "/_headers", &[404]),
        get("`_redirects` is not served", "/_redirects", &[404]),
        moved("`_redirects`: 301", "/moved/301", 301, "/about"),
        moved("`_redirects`: 302", "/moved/302", 302, "/about"),
        moved("`_redirects`: 303", "/moved/303", 303, "/about"),
        moved("`_redirects`: 307", "/moved/307", 307, "/about"),
        moved("`_redirects`: 308", "/moved/308", 308, "/about"),
        moved("A redirect to another site", "/moved/out", 301, "https://elsewhere.test/there"),
        moved("A redirect with a query of its own", "/moved/query", 302, "/about?from=moved"),
        moved("The request's query is passed on", "/moved/301?a=b", 301, "/about?a=b"),
        moved("A redirect with `:name`", "/blog/2026/hello", 301, "/posts/hello-2026"),
        moved("A redirect with `:splat`", "/wild/a/b/c", 301, "/docs/a/b/c"),
        moved("`:splat` is no way to another site", "/wild//evil.test/x", 301, "/docs//evil.test/x"),
        get("A rewrite of `_redirects`", "/rewritten", &[200]).and(Content("about.html")),
        get("A path that no rule matches", "/blog/2026", &[404]),
    ]
}
