//! A request's path: what answers is the file that the path names when it is
//! decoded once, and a redirect stays with the site.
#![no_main]

use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode_str;
use wharf_app::{Manifest, Routes, Target};
use wharf_fuzz::site::{self, Site};

fuzz_target!(|text: &str| {
    site::with(|site| {
        resolve(site, text);
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return;
        }
        let request = format!("GET /{text} HTTP/1.1\r\nhost: site.test\r\nconnection: close\r\n\r\n");
        let response = site.ask("GET", request.as_bytes());
        let path = text.split(['?', '#']).next().unwrap_or_default();
        match response.status {
            200 => {
                let decoded = percent_decode_str(path).decode_utf8().expect("what is found is UTF-8");
                assert!(named(&decoded).iter().any(|name| site.files.get(name) == Some(&response.body)));
                assert!(!decoded.split('/').any(|segment| segment == ".."), "{decoded:?}");
            }
            308 => {
                let location = response.header("location").expect("a redirect leads somewhere");
                let mut bytes = location.bytes();
                assert_eq!(bytes.next(), Some(b'/'), "{location:?}");
                assert!(!matches!(bytes.next(), Some(b'/' | b'\\')), "{location:?}");
                assert!(location.bytes().all(|byte| byte.is_ascii_graphic()), "{location:?}");
            }
            400 | 404 | 414 | 431 => {}
            status => panic!("{status} for {text:?}"),
        }
    });
});

/// The files that a decoded path may name, less its first slash.
fn named(path: &str) -> [String; 3] {
    [path.to_owned(), format!("{path}index.html"), format!("{path}.html")]
}

/// The same of the routes alone, where any text is a path.
fn resolve(site: &Site, path: &str) {
    thread_local!(static ROUTES: std::cell::OnceCell<(Manifest, Routes)> = const { std::cell::OnceCell::new() });
    ROUTES.with(|routes| {
        let (manifest, routes) = routes.get_or_init(|| {
            let files: Vec<_> = site.files.keys().map(|path| {
                serde_json::json!({ "path": path, "size": 0, "sha256": wharf_app::Sha256::of(b""), "type": "a/b" })
            }).collect();
            let manifest = serde_json::json!({ "schema": 1, "name": "fuzz", "site": { "isolated": false, "files": files } });
            let manifest = Manifest::parse(manifest.to_string().as_bytes()).expect("it is valid");
            let routes = Routes::new(&manifest).expect("they agree");
            (manifest, routes)
        });
        for path in [path.to_owned(), format!("/{path}")] {
            let name = path.strip_prefix('/').unwrap_or("//");
            match routes.resolve(&path) {
                Target::Asset(index) => {
                    assert!(named(name).contains(&manifest.site.files[index].path), "{path:?}");
                }
                Target::Redirect(to) => assert_eq!(to, format!("{path}/")),
                Target::NotFound(Some(page)) => {
                    assert!(manifest.site.files[page].path.ends_with("404.html"), "{path:?}");
                }
                _ => {}
            }
        }
    });
}
