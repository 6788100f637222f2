//! A small app that is served without a network, and what it may answer.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use tokio::runtime::Runtime;
use wharf_app::Sha256;
use wharf_host::{App, AppSource, CodeDir, HostCode};

/// What lies beside the site and is never answered.
const SECRET: &[u8] = b"nobody may read this";

/// The codings of each file that has encoded forms; these are not real ones.
pub const CODINGS: [(&str, &str); 3] = [("br", "br"), ("zstd", "zst"), ("gzip", "gz")];

/// A served site.
pub struct Site {
    app: Arc<App>,
    runtime: Runtime,
    /// All files by path, encoded forms as siblings.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// An HTTP/1.1 response that is well-formed.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// A field's value; none if it isn't there.
    pub fn header(&self, name: &str) -> Option<&str> {
        let field = self.headers.iter().find(|(key, _)| key == name);
        field.map(|(_, value)| value.as_str())
    }
}

/// Runs `test` with the site, which is made once.
pub fn with<T>(test: impl FnOnce(&Site) -> T) -> T {
    thread_local!(static SITE: OnceCell<Site> = const { OnceCell::new() });
    SITE.with(|site| test(site.get_or_init(Site::new)))
}

impl Site {
    fn new() -> Self {
        let line = |name: &str| format!("this is {name}\n").into_bytes();
        let names = [
            "index.html",
            "about.html",
            "404.html",
            "docs/index.html",
            "docs/guide.html",
            "docs/404.html",
            "a b.txt",
            "\u{e4}.txt",
            "percent%41.txt",
            "@x/+.js",
            ".well-known/x",
            "dir.d/index.html",
        ];
        let mut files: BTreeMap<String, Vec<u8>> =
            names.into_iter().map(|name| (name.to_owned(), line(name))).collect();
        files.insert("empty.txt".into(), Vec::new());
        // One that is kept in memory, and one that is read as it is sent.
        for (name, size) in [("small.js", 1_000_u32), ("large.js", 100_000)] {
            for (suffix, size) in [("", size), (".br", size / 3), (".zst", size / 4), (".gz", size / 2)] {
                let content = (0..size).map(|n| (n * 7 + n / 251 + size) as u8).collect();
                files.insert(format!("{name}{suffix}"), content);
            }
        }
        let is_form = |path: &str| CODINGS.iter().any(|(_, suffix)| path.ends_with(&format!(".{suffix}")));
        let described = |path: &String, content: &Vec<u8>| {
            let encodings = CODINGS.iter().filter_map(|(coding, suffix)| {
                let form = files.get(&format!("{path}.{suffix}"))?;
                Some(json!({ "coding": coding, "size": form.len(), "sha256": Sha256::of(form) }))
            });
            let encodings: Vec<_> = encodings.collect();
            let media_type = "text/plain";
            let (size, sha256) = (content.len(), Sha256::of(content));
            let mut asset = json!({ "path": path, "size": size, "sha256": sha256, "type": media_type });
            if !encodings.is_empty() {
                asset["encodings"] = encodings.into();
            }
            asset
        };
        let assets: Vec<_> = files
            .iter()
            .filter(|(path, _)| !is_form(path))
            .map(|(path, content)| described(path, content))
            .collect();
        let manifest = json!({ "schema": 1, "name": "fuzz", "site": { "isolated": false, "files": assets } });
        // The same for all targets and runs, so that runs leave one folder behind.
        let folder = std::env::temp_dir().join("wharf-fuzz-site");
        write(&folder.join("secret.txt"), SECRET);
        write(&folder.join("wharf.json"), manifest.to_string().as_bytes());
        for (path, content) in &files {
            write(&folder.join("site").join(path), content);
        }
        let code = HostCode::Image(CodeDir::new(folder.join("aot")));
        let source = AppSource::sealed(&folder, code).expect("the manifest is valid");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let app = App::load(&wharf_host::Runtime::new().expect("an engine"), source).expect("the app loads");
        Self { app: Arc::new(app), runtime, files }
    }

    /// All that is answered to a client that sends `bytes`.
    pub fn converse(&self, bytes: &[u8]) -> Vec<u8> {
        let answer = self.runtime.block_on(wharf_host::fuzzing::converse(&self.app, bytes));
        assert!(!answer.windows(SECRET.len()).any(|window| window == SECRET), "the secret is out");
        answer
    }

    /// The answer to one request of `method`, which asks for `close`. It is
    /// well-formed, and no failure of the server's.
    pub fn ask(&self, method: &str, request: &[u8]) -> Response {
        let answer = self.converse(request);
        let text = || String::from_utf8_lossy(&answer[..answer.len().min(2_000)]);
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no end of the head: {:?}", text()));
        let head = std::str::from_utf8(&answer[..end]).expect("a head is text");
        let body = answer[end + 4..].to_vec();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
        let status: u16 = status.unwrap_or_else(|| panic!("no status: {:?}", text()));
        assert!(status < 500, "{:?}", text());
        let headers: Vec<(String, String)> = lines
            .map(|line| {
                assert!(line.bytes().all(|byte| byte >= b' ' && byte != 0x7f), "{line:?}");
                let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("no field: {line:?}"));
                (name.to_ascii_lowercase(), value.to_owned())
            })
            .collect();
        let response = Response { status, headers, body };
        assert!(response.header("transfer-encoding").is_none(), "a static answer has a length");
        let length = response.header("content-length").map(|length| length.parse().expect("a length"));
        let without = method == "HEAD" || matches!(status, 204 | 304);
        let expected = if without { 0 } else { length.unwrap_or(0) };
        assert_eq!(response.body.len(), expected, "{:?}", text());
        response
    }
}

fn write(path: &Path, content: &[u8]) {
    // Another run may be using it: it is the same.
    if fs::read(path).is_ok_and(|found| found == content) {
        return;
    }
    fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("a folder can be made");
    fs::write(path, content).expect("a file can be written");
}
