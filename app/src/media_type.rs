//! The `Content-Type` of a file, by its name.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The user's own types, by the end of a file's name: `.foo`, `.tar.gz`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub struct MediaTypes(BTreeMap<String, String>);

impl MediaTypes {
    /// The type of the longest ending that the file at `path` has, in
    /// whatever case.
    #[must_use]
    pub fn of(&self, path: &str) -> Option<&str> {
        if self.0.is_empty() {
            return None;
        }
        let name = path.rsplit('/').next()?.to_ascii_lowercase();
        let mut dots = name.match_indices('.').map(|(dot, _)| &name[dot..]);
        dots.find_map(|ending| self.0.get(ending)).map(String::as_str)
    }
}

impl TryFrom<BTreeMap<String, String>> for MediaTypes {
    type Error = String;

    fn try_from(types: BTreeMap<String, String>) -> Result<Self, Self::Error> {
        let checked = types.into_iter().map(|(ending, media_type)| {
            if ending.len() < 2 || !ending.starts_with('.') || ending.contains('/') {
                return Err(format!("invalid file ending {ending:?}: expected an ending such as \".foo\""));
            }
            if !is_media_type(&media_type) {
                let expected = "expected a media type such as \"text/x-foo; charset=utf-8\"";
                return Err(format!("invalid type {media_type:?} of {ending:?}: {expected}"));
            }
            Ok((ending.to_ascii_lowercase(), media_type))
        });
        checked.collect::<Result<_, _>>().map(Self)
    }
}

/// `type/subtype`, perhaps with parameters (RFC 9110, 8.3.1).
fn is_media_type(text: &str) -> bool {
    let is_token = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let visible = parameters.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    visible && essence.trim_end().split_once('/').is_some_and(|(kind, sub)| is_token(kind) && is_token(sub))
}

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
    use super::{MediaTypes, of};

    #[test]
    fn the_longest_ending_of_the_users_own_types_counts_in_whatever_case() {
        let types =
            [(".Foo", "text/x-foo; charset=utf-8"), (".gz", "application/gzip"), (".tar.gz", "x/tgz")];
        let types = types.map(|(ending, media_type)| (ending.to_owned(), media_type.to_owned()));
        let types = MediaTypes::try_from(std::collections::BTreeMap::from(types)).unwrap();
        assert_eq!(types.of("a.foo/b.FOO"), Some("text/x-foo; charset=utf-8"));
        assert_eq!(types.of("b.x.tar.gz"), Some("x/tgz"));
        assert_eq!(types.of("b.x.gz"), Some("application/gzip"));
        assert_eq!(types.of("a.foo/b"), None);
        for media_type in ["", "text", "text/", "/x", "text/x y", "text/x;\r\na: b", "text /x"] {
            let types = [(".foo".to_owned(), media_type.to_owned())];
            assert!(MediaTypes::try_from(std::collections::BTreeMap::from(types)).is_err(), "{media_type}");
        }
    }

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
