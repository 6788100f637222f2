//! The site that all servers serve, made up so that each of its files has a
//! behaviour to show.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::OnceLock;

use crate::client::{PROBE_ANSWER, SMUGGLED_ANSWER};

/// Length of `/large.bin`: more than any server keeps in its memory.
pub(crate) const LARGE: usize = 3 << 20;

/// What is not the site's, though it lies near, or in, its folder.
pub(crate) const SECRETS: [&[u8]; 2] = [b"secret\n", b"outside\n"];

/// `_headers`, as Cloudflare Pages and Netlify read it.
const HEADERS: &str = "\
# Rules of which several match are merged.
/headers/*
  X-One: first
  Cache-Control: no-store
/headers/merged.txt
  X-One: second
/headers/without.txt
  ! X-One
  X-Two: 2
/headers/:name/named.txt
  X-Name: it is :name
";

/// `_redirects`, as Cloudflare Pages and Netlify read it.
const REDIRECTS: &str = "\
/moved/301 /about 301
/moved/302 /about 302
/moved/303 /about 303
/moved/307 /about 307
/moved/308 /about 308
/moved/out https://elsewhere.test/there 301
/moved/query /about?from=moved 302
/blog/:year/:slug /posts/:slug-:year 301
/wild/* /docs/:splat 301
/rewritten /about 200
";

/// The files below `public/`, by path.
fn files() -> &'static BTreeMap<String, Vec<u8>> {
    static FILES: OnceLock<BTreeMap<String, Vec<u8>>> = OnceLock::new();
    FILES.get_or_init(|| {
        let texts: [(&str, &[u8]); 32] = [
            ("index.html", b"<!doctype html><title>Home</title>\n"),
            ("about.html", b"<!doctype html><title>About</title>\n"),
            ("404.html", b"<!doctype html><title>Nothing here</title>\n"),
            ("docs/index.html", b"<!doctype html><title>Docs</title>\n"),
            ("docs/guide.html", b"<!doctype html><title>Guide</title>\n"),
            ("docs/404.html", b"<!doctype html><title>No such page of the docs</title>\n"),
            ("both.html", b"<!doctype html><title>The file</title>\n"),
            ("both/index.html", b"<!doctype html><title>The folder</title>\n"),
            ("no-index/file.txt", b"in a folder without index\n"),
            ("digits.txt", b"0123456789"),
            ("empty.txt", b""),
            ("probe.txt", PROBE_ANSWER),
            ("smuggled.txt", SMUGGLED_ANSWER),
            ("with space.txt", b"a space\n"),
            ("t\u{e4}glich.txt", b"not ASCII\n"),
            ("@scope/pkg+1.txt", b"marks\n"),
            ("percent%41.txt", b"a percent sign in the name\n"),
            (".well-known/security.txt", b"Contact: mailto:security@site.test\n"),
            (".hidden", SECRETS[0]),
            (".git/config", SECRETS[0]),
            ("module.mjs", b"export {};\n"),
            ("program.wasm", b"\0asm\x01\0\0\0"),
            ("notebook.ipynb", b"{}\n"),
            ("app.webmanifest", b"{}\n"),
            ("app.js.map", b"{}\n"),
            ("image.svg", b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>\n"),
            ("font.woff2", b"wOF2"),
            ("no-extension", b"what am I\n"),
            ("headers/one.txt", b"one\n"),
            ("headers/merged.txt", b"merged\n"),
            ("headers/without.txt", b"without\n"),
            ("headers/ada/named.txt", b"named\n"),
        ];
        let mut files: BTreeMap<String, Vec<u8>> =
            texts.into_iter().map(|(path, content)| (path.to_owned(), content.to_vec())).collect();
        // Worth compressing.
        let script = "export const greeting = \"hello from the site\";\n".repeat(400).into_bytes();
        files.insert("app.js".into(), script.clone());
        files.insert("assets/app.3f2a1b9c.js".into(), script);
        // Not worth compressing: xorshift, so that the bytes are no pattern.
        let mut state = 0x2545_f491_u32;
        let noise = (0..LARGE).map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[1]
        });
        files.insert("large.bin".into(), noise.collect());
        files.insert("jquery-3.7.1.min.js".into(), b"1;\n".to_vec());
        files
    })
}

/// What a file of the site holds.
pub(crate) fn content(path: &str) -> Vec<u8> {
    files().get(path).unwrap_or_else(|| panic!("the site has no {path:?}")).clone()
}

/// Writes the site below `folder`, with `_headers` and `_redirects`.
pub(crate) fn write(folder: &Path) {
    for (path, content) in files() {
        write_file(&folder.join(path), content);
    }
    write_file(&folder.join("_headers"), HEADERS.as_bytes());
    write_file(&folder.join("_redirects"), REDIRECTS.as_bytes());
}

/// Adds compressed siblings, which `wharf build` makes itself.
pub(crate) fn add_siblings(folder: &Path) {
    for script in ["app.js", "assets/app.3f2a1b9c.js"] {
        let content = content(script);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut gzip, &content).expect("memory takes it");
        write_file(&folder.join(format!("{script}.gz")), &gzip.finish().expect("memory takes it"));
        let zstd = zstd::encode_all(content.as_slice(), 19).expect("memory takes it");
        write_file(&folder.join(format!("{script}.zst")), &zstd);
        let mut br = Vec::new();
        let parameters = brotli::enc::BrotliEncoderParams::default();
        brotli::BrotliCompress(&mut content.as_slice(), &mut br, &parameters).expect("memory takes it");
        write_file(&folder.join(format!("{script}.br")), &br);
    }
}

/// Adds a link out of the site, which `wharf build` refuses.
pub(crate) fn add_link(folder: &Path) {
    let outside = folder.with_file_name("outside.txt");
    write_file(&outside, SECRETS[1]);
    symlink(&outside, folder.join("leak.txt")).expect("a link can be made");
}

fn write_file(path: &Path, content: &[u8]) {
    fs_err::create_dir_all(path.parent().expect("a file lies in a folder")).expect("a folder can be made");
    fs_err::write(path, content).expect("a file can be written");
}
