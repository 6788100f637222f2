//! Names that a bundler made of a file's content: `app.3f2a1b9c.js`.
//!
//! A file of such a name never changes, so caches may keep it for good. Taking
//! another name for one would let them keep what did change, so it is the
//! shape that webpack, Vite, Rollup, esbuild, Parcel, Next, SvelteKit and
//! JupyterLite give their hashes, and nothing near it.

/// Extensions of what bundlers emit, in lower case.
const EMITTED: [&str; 30] = [
    "avif", "bmp", "cjs", "css", "eot", "gif", "glb", "ico", "jpeg", "jpg", "js", "json", "map", "mjs",
    "mp3", "mp4", "ogg", "otf", "pdf", "png", "svg", "ttf", "txt", "wasm", "wav", "webm", "webp", "whl",
    "woff", "woff2",
];

/// Whether the last part of `path` has a content hash in it.
///
/// The hash is the last part of the name before its extension, or its first or
/// only one, parted from the rest by a dot, a dash or an underscore:
///
/// - 8 to 64 hex digits (lower case), of which some are letters and some are
///   digits, as no word, date or number has; of 20 and more, letters or digits
///   may lack. `app.3f2a1b9c.js`, `0a1b2c3d4e5f60718293.css`;
/// - behind a dash or a dot, 8 letters and digits of both cases (base64url, as
///   Vite has them) that are no words: `index-DiwrgTda.js`;
/// - behind a dash or a dot, 8 upper-case letters and digits 2 to 7 (base32, as
///   esbuild has them), of both kinds: `chunk-5QWXAB2C.js`.
#[must_use]
pub fn is_fingerprinted(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let Some((mut stem, extension)) = name.rsplit_once('.') else { return false };
    if !EMITTED.contains(&extension.to_ascii_lowercase().as_str()) {
        return false;
    }
    // `app.3f2a1b9c.js.map`, `main.3f2a1b9c.js.LICENSE.txt`, `a.3f2a1b9c.chunk.js`.
    while let Some((rest, last)) = stem.rsplit_once('.') {
        let inner = matches!(last, "LICENSE" | "bundle" | "chunk" | "min" | "module" | "worker");
        if !inner && !EMITTED.contains(&last) {
            break;
        }
        stem = rest;
    }
    let last = stem.rsplit(['.', '-', '_']).next().unwrap_or_default();
    let first = stem.split(['.', '-', '_']).next().unwrap_or_default();
    if is_hex_hash(last) || is_hex_hash(first) {
        return true;
    }
    // base64url has dashes and underscores in it: the eight last characters.
    let Some(cut) = stem.len().checked_sub(9).filter(|cut| stem.is_char_boundary(*cut)) else { return false };
    let separated = cut > 0 && matches!(stem.as_bytes()[cut], b'-' | b'.');
    separated && stem.is_ascii() && (is_base64_hash(&stem[cut + 1..]) || is_base32_hash(&stem[cut + 1..]))
}

fn is_hex_hash(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let letters = text.bytes().filter(|byte| (b'a'..=b'f').contains(byte)).count();
    let mixed = text.len() >= 20 || (digits >= 2 && letters >= 1);
    // 20 digits may be a number that someone counted with; hashes that long
    // have a letter but for one in ten thousand.
    (8..=64).contains(&text.len()) && digits + letters == text.len() && mixed && letters > 0
}

fn is_base64_hash(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    text.len() == 8
        && text.bytes().all(allowed)
        && text.bytes().any(|byte| byte.is_ascii_uppercase())
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
        && !is_of_words(text)
}

/// Whether `text` could be camelCase, with numbers: `OpenSans`, `Web3Core`.
fn is_of_words(text: &str) -> bool {
    let mut words: Vec<String> = vec![String::new()];
    let mut previous = b' ';
    for byte in text.bytes() {
        let starts = byte.is_ascii_uppercase() && !previous.is_ascii_uppercase();
        if starts || !byte.is_ascii_alphabetic() || !previous.is_ascii_alphabetic() {
            words.push(String::new());
        }
        if byte.is_ascii_alphabetic()
            && let Some(word) = words.last_mut()
        {
            word.push(char::from(byte.to_ascii_lowercase()));
        }
        previous = byte;
    }
    words.iter().filter(|word| !word.is_empty()).all(|word| is_word(word))
}

/// Whether someone could say `word`, or spell it.
fn is_word(word: &str) -> bool {
    const SPELLED: [&str; 12] =
        ["cdn", "css", "dnd", "gl", "html", "http", "ltr", "rtl", "sql", "ssr", "svg", "xml"];
    /// How words begin that begin with two consonants.
    const BEGINNINGS: [&str; 38] = [
        "bl", "br", "ch", "cl", "cr", "dr", "dw", "fl", "fr", "gh", "gl", "gn", "gr", "kl", "kn", "kr", "ph",
        "pl", "pr", "ps", "rh", "sc", "sh", "sk", "sl", "sm", "sn", "sp", "sq", "st", "sv", "sw", "th", "tr",
        "ts", "tw", "wh", "wr",
    ];
    let is_vowel = |byte: u8| b"aeiouy".contains(&byte);
    let longest = word.as_bytes().split(|byte| is_vowel(*byte)).map(<[u8]>::len).max().unwrap_or(0);
    let begins_well =
        word.len() < 2 || word.bytes().take(2).any(is_vowel) || BEGINNINGS.contains(&&word[..2]);
    SPELLED.contains(&word) || (word.len() >= 2 && word.bytes().any(is_vowel) && longest <= 4 && begins_well)
}

fn is_base32_hash(text: &str) -> bool {
    let digits = text.bytes().filter(|byte| (b'2'..=b'7').contains(byte)).count();
    let letters = text.bytes().filter(u8::is_ascii_uppercase).count();
    text.len() == 8 && digits + letters == 8 && digits >= 1 && letters >= 3
        // A word and a year or version: `RELEASE2`, `NOTES2024`.
        && text.bytes().rposition(|byte| byte.is_ascii_uppercase()).is_some_and(|last| {
            text[..last].bytes().any(|byte| byte.is_ascii_digit())
        })
}

#[cfg(test)]
mod tests {
    use super::is_fingerprinted;

    #[test]
    fn names_that_bundlers_made_of_contents_are_recognised() {
        for path in [
            "app.3f2a1b9c.js",
            "static/js/main.8a5f3c21.chunk.js",
            "static/js/main.8a5f3c21.js.LICENSE.txt",
            "static/js/main.8a5f3c21.js.map",
            "chunk.0a1b2c3d4e.css",
            "assets/index-DiwrgTda.js",
            "assets/index-BkU9X1w_.css",
            "assets/logo-C0-tYf3b.svg",
            "chunk-5QWXAB2C.js",
            "build/jlab_core.0d9ee2d3a6ad1d5d9a1b.js",
            "build/1036.0d4c1a2f3c5d6e7f8a9b.js",
            "3f2a1b9c.js",
            "0a1b2c3d4e5f60718293.css",
            "_next/static/chunks/framework-3f2a1b9c0d1e2f3a.js",
            "image.6d1b0fa1c9a3e2b4f5d6.png",
        ] {
            assert!(is_fingerprinted(path), "{path}");
        }
    }

    #[test]
    fn words_dates_and_versions_are_not() {
        for path in [
            "jquery-3.7.1.min.js",
            "bootstrap-icons.css",
            "app.js",
            "main.bundle.js",
            "report-20240131.pdf",
            "report-2024-01-31.pdf",
            "report.20240131.css",
            "photo_12345678.jpg",
            "12345678901234567890.png",
            "deadbeef.js",
            "facade-decade.js",
            "app-defaced.css",
            "bootstrap.min.css",
            "polyfill-7.12.1.js",
            "my-Elephant.js",
            "my-myModule.js",
            "my-Roboto22.woff2",
            "font-OpenSans.woff",
            "x-Web3Core.js",
            "x-HtmlUtil.js",
            "x-LightBox.js",
            "foo-Open-San.js",
            "README-CHANGELOG.txt",
            "x-RELEASE2.js",
            "index.html",
            "index-DiwrgTda.html",
            "3f2a1b9c",
            ".3f2a1b9c",
            "a.3f2a1b9c/b.js",
            "ä-ööööBcD1.js",
            "d3.v7.min.js",
            "three.module.js",
            "pyodide-lock.json",
            "",
        ] {
            assert!(!is_fingerprinted(path), "{path}");
        }
    }
}
