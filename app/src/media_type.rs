//! The `Content-Type` of a file, by its name.

/// The value of `Content-Type` for the file at `path`.
///
/// Types that browsers check before they run a file are certain: `.wasm`
/// (streaming compilation needs `application/wasm`) and `.mjs` (a module
/// script needs a JavaScript type). Text carries `charset=utf-8`.
#[must_use]
pub fn of(path: &str) -> String {
    let extension = path.rsplit('/').next().and_then(|name| name.rsplit_once('.'));
    let extension = extension.map(|(_, extension)| extension.to_ascii_lowercase());
    let known = match extension.as_deref() {
        Some("js" | "mjs" | "cjs") => Some("text/javascript; charset=utf-8"),
        Some("wasm") => Some("application/wasm"),
        Some("json" | "map" | "ipynb") => Some("application/json"),
        Some("webmanifest") => Some("application/manifest+json"),
        Some("whl") => Some("application/zip"),
        Some("data") => Some("application/octet-stream"),
        // The table of `mime_guess` has TypeScript as an MPEG stream.
        Some("ts" | "mts" | "tsx") => Some("text/plain; charset=utf-8"),
        _ => None,
    };
    if let Some(known) = known {
        return known.to_owned();
    }
    let guess = mime_guess::from_path(path).first_or_octet_stream();
    if guess.type_() == mime_guess::mime::TEXT && guess.get_param("charset").is_none() {
        format!("{guess}; charset=utf-8")
    } else {
        guess.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn types_that_browsers_insist_on_are_right() {
        for (path, expected) in [
            ("dist/pyodide.mjs", "text/javascript; charset=utf-8"),
            ("a/b.js", "text/javascript; charset=utf-8"),
            ("pyodide.asm.wasm", "application/wasm"),
            ("index.html", "text/html; charset=utf-8"),
            ("style.CSS", "text/css; charset=utf-8"),
            ("hello.ipynb", "application/json"),
            ("x.svg", "image/svg+xml"),
            ("font.woff2", "font/woff2"),
            ("LICENSE", "application/octet-stream"),
            ("a.b/noext", "application/octet-stream"),
        ] {
            assert_eq!(of(path), expected, "{path}");
        }
    }
}
