//! Which file answers which path.

use crate::case::{Case, Check::*};

/// What users of Cloudflare Pages, Netlify, Caddy and nginx know; and that
/// nothing private is served.
pub(crate) fn cases() -> Vec<Case> {
    let get =
        |behaviour, clause, path: &str, statuses: &[u16]| Case::get(behaviour, clause, path, &[], statuses);
    vec![
        get("The site's root", "custom", "/", &[200])
            .and(Content("index.html"))
            .and(Starts("content-type", "text/html")),
        get("A page without its extension", "Pages, Netlify", "/about", &[200]).and(Content("about.html")),
        get("A query does not matter", "RFC 3986, 3.4", "/about?a=b", &[200]).and(Content("about.html")),
        get("A folder by its slash", "custom", "/docs/", &[200]).and(Content("docs/index.html")),
        get("A folder without its slash", "custom", "/docs", &[301, 308]).and(EndsIn("location", "/docs/")),
        get("That redirect keeps the query", "custom", "/docs?a=b&c", &[301, 308])
            .and(EndsIn("location", "/docs/?a=b&c")),
        get("That redirect keeps the method", "Pages, Caddy", "/docs", &[308]),
        get("A missing page shows the site's own", "Pages, Netlify", "/no-such-page", &[404])
            .and(Content("404.html"))
            .and(Starts("content-type", "text/html")),
        get("The nearest such page is shown", "Pages", "/docs/no/such/page", &[404])
            .and(Content("docs/404.html")),
        get("Such a page is not kept for ever", "custom", "/no-such-page", &[404]).and(NotImmutable),
        get("A folder without index is not listed", "custom", "/no-index/", &[403, 404]),
        get("A file with a slash behind it", "custom", "/digits.txt/", &[301, 308, 404]),
        get("A hidden file", "custom", "/.hidden", &[403, 404]),
        get("A hidden folder", "custom", "/.git/config", &[403, 404]),
        get("`.well-known` is not hidden", "RFC 8615, 3", "/.well-known/security.txt", &[200])
            .and(Content(".well-known/security.txt")),
        get("A link out of the site", "design", "/leak.txt", &[403, 404]),
        get("A space in a name", "RFC 3986, 2.1", "/with%20space.txt", &[200]).and(Content("with space.txt")),
        get("A name that is not ASCII", "RFC 3986, 2.5", "/t%C3%A4glich.txt", &[200])
            .and(Content("t\u{e4}glich.txt")),
        get("Marks as they are", "RFC 3986, 3.3", "/@scope/pkg+1.txt", &[200])
            .and(Content("@scope/pkg+1.txt")),
        get("Marks, encoded", "RFC 3986, 6.2.2.2", "/%40scope/pkg%2B1.txt", &[200])
            .and(Content("@scope/pkg+1.txt")),
        get("A letter, encoded", "RFC 3986, 6.2.2.2", "/digit%73.txt", &[200]).and(Content("digits.txt")),
        get("Decoded once, not twice", "RFC 3986, 2.4", "/percent%2541.txt", &[200])
            .and(Content("percent%41.txt")),
        get("A path has a case", "RFC 3986, 6.2.2.1", "/Digits.txt", &[404]),
    ]
}
