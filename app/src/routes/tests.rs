use super::*;
use crate::digest::Sha256;
use crate::manifest::{Asset, Component, Limits, Site};
use crate::redirects::parse_redirects;

fn manifest(files: &[&str], patterns: &[&str]) -> Manifest {
    let mut manifest = Manifest::new("test".into(), Site::default());
    manifest.site.files = files
        .iter()
        .map(|path| Asset {
            path: (*path).into(),
            size: 0,
            sha256: Sha256::of(b""),
            media_type: "text/plain".into(),
            encodings: Vec::new(),
        })
        .collect();
    manifest.components.push(Component {
        file: "workers/x.wasm".into(),
        size: 0,
        sha256: Sha256::of(b""),
        wasi: Default::default(),
    });
    manifest.workers = patterns
        .iter()
        .map(|pattern| Worker {
            name: (*pattern).into(),
            pattern: (*pattern).into(),
            source: format!("{pattern}.py"),
            component: 0,
            abi: Default::default(),
            env: Default::default(),
            grants: Default::default(),
            limits: Limits::default(),
            reuse: 1,
        })
        .collect();
    manifest
}

fn routes(files: &[&str], patterns: &[&str]) -> Routes {
    Routes::new(&manifest(files, patterns)).unwrap()
}

#[test]
fn exact_worker_then_file_then_dynamic_worker_then_catch_all() {
    let routes = routes(&["index.html", "a/file.txt", "a/x"], &["/[...all]", "/a/[id]", "/a/x", "/"]);
    assert_eq!(routes.resolve("/"), Target::Worker(3, vec![]));
    assert_eq!(routes.resolve("/a/x"), Target::Worker(2, vec![]));
    assert_eq!(routes.resolve("/a/file.txt"), Target::Asset(1));
    assert_eq!(routes.resolve("/a/7"), Target::Worker(1, vec![("id".into(), "7".into())]));
    assert_eq!(routes.resolve("/b/c"), Target::Worker(0, vec![("all".into(), "b/c".into())]));
}

fn ruled(files: &[&str], patterns: &[&str], redirects: &str) -> Routes {
    let mut manifest = manifest(files, patterns);
    manifest.site.redirects = parse_redirects(redirects.as_bytes(), "_redirects").unwrap();
    Routes::new(&manifest).unwrap()
}

#[test]
fn a_redirect_comes_before_all_and_a_rewrite_after_all_unless_forced() {
    let files = ["a.html", "index.html", "en/404.html", "d/index.html"];
    let rules = "/a /moved 301\n/x /moved 301\n/d/* /a.html 200!\n/en/* /en/404.html 404\n\
        /folder /d 200\n/w/* /api/:splat?q=1 200\n/* /index.html 200\n";
    let routes = ruled(&files, &["/x", "/api/[id]"], rules);
    let find = |path: &str| routes.find("h", path, Reads::Yes);
    let moved = Target::Elsewhere { status: 301, location: "/moved".into() };
    assert_eq!(find("/a").target, moved);
    assert_eq!(find("/x").target, moved);
    assert_eq!(find("/d/").target, Target::Asset(0));
    assert_eq!(find("/d/").rewritten.as_deref(), Some("/a.html"));
    assert_eq!(find("/en/x").target, Target::NotFound(Some(2)));
    assert_eq!(find("/folder").target, Target::Asset(3));
    assert_eq!(find("/a.html"), Found { target: Target::Asset(0), rewritten: None });
    assert_eq!(find("/some/page").target, Target::Asset(1));
    let worker = find("/w/7 8");
    assert_eq!(worker.target, Target::Worker(1, vec![("id".into(), "7 8".into())]));
    assert_eq!(worker.rewritten.as_deref(), Some("/api/7%208?q=1"));
    assert_eq!(find("/api/1").rewritten, None);
}

#[test]
fn placeholders_of_a_rewrite_can_not_make_a_segment_that_leads_out() {
    let rules = "/u-:a/* /files/:a/:splat 200!\n/v/:a.x /files/.:a 200\n/w/*-y /files/:splat./b 404\n";
    let routes = ruled(&["404.html"], &["/files/[...rest]"], rules);
    let worker = |rest: &str| Target::Worker(0, vec![("rest".into(), rest.into())]);
    for (path, rest) in [("/u-ada/..a/...", "ada/..a/..."), ("/v/a.x", ".a"), ("/w/..-y", ".../b")] {
        assert_eq!(routes.find("h", path, Reads::Yes).target, worker(rest), "{path}");
    }
    for path in ["/u-../secret", "/u-./secret", "/v/..x", "/w/.-y", "/w/-y", "/w/a/.-y"] {
        for reads in [Reads::Yes, Reads::No] {
            let found = routes.find("h", path, reads);
            assert_eq!(found, Found { target: Target::NotFound(Some(0)), rewritten: None }, "{path}");
        }
    }
}

#[test]
fn what_a_file_can_not_answer_goes_to_a_worker_of_the_same_path() {
    let routes = routes(&["index.html", "b.html"], &["/[...all]"]);
    assert_eq!(routes.find("", "/", Reads::Yes).target, Target::Asset(0));
    let worker = |rest: &str| Target::Worker(0, vec![("all".into(), rest.into())]);
    assert_eq!(routes.find("", "/", Reads::No).target, worker(""));
    let routes = ruled(&["index.html"], &[], "");
    assert_eq!(routes.find("", "/", Reads::No).target, Target::Asset(0));
}

#[test]
fn hidden_files_and_the_files_of_rules_have_no_address() {
    let files = [".env", ".git/config", ".well-known/x", "_headers", "_redirects", "a/.b/c", "d/_headers"];
    let routes = routes(&files, &[]);
    for (index, file) in files.iter().enumerate() {
        let expected = if [2, 6].contains(&index) { Target::Asset(index) } else { Target::NotFound(None) };
        assert_eq!(routes.resolve(&format!("/{file}")), expected, "{file}");
    }
}

#[test]
fn redirects_are_listed_where_they_take_effect() {
    let mut manifest = manifest(&["a.txt"], &["/x"]);
    let rules = b"/* /index.html 200\n/old /new";
    manifest.site.redirects = parse_redirects(rules, "_redirects").unwrap();
    let lines = Routes::new(&manifest).unwrap().lines(&manifest);
    let lines: Vec<String> =
        lines.iter().map(|line| format!("{} {} {}", line.kind, line.pattern, line.source)).collect();
    assert_eq!(
        lines,
        [
            "redirect /old 302 /new",
            "worker /x /x.py",
            "static /a.txt public/a.txt",
            "redirect /* 200 /index.html"
        ]
    );
}

#[test]
fn a_folder_is_redirected_to_its_slash() {
    let routes = routes(&["dist/index.html", "about.html"], &[]);
    assert_eq!(routes.resolve("/dist"), Target::Redirect("/dist/".into()));
    assert_eq!(routes.resolve("/dist/"), Target::Asset(0));
    assert_eq!(routes.resolve("/about"), Target::Asset(1));
    assert_eq!(routes.resolve("/"), Target::NotFound(None));
}

#[test]
fn the_nearest_not_found_page_is_shown() {
    let routes = routes(&["404.html", "docs/404.html"], &[]);
    assert_eq!(routes.resolve("/docs/a/b"), Target::NotFound(Some(1)));
    assert_eq!(routes.resolve("/other/a"), Target::NotFound(Some(0)));
    assert_eq!(routes.resolve("/docs"), Target::NotFound(Some(0)));
}

#[test]
fn a_path_of_nothing_but_slashes_costs_no_more_lookups_than_pages_are_deep() {
    let routes = routes(&["404.html", "a/404.html"], &[]);
    let slashes = "/".repeat(65_000);
    assert_eq!(routes.resolve(&slashes), Target::NotFound(Some(0)));
    assert!(routes.folders_with_a_page(&slashes).count() <= 3);
}

#[test]
fn the_list_has_workers_by_precedence_and_a_line_for_each_folder() {
    let manifest = manifest(&["a.txt", "d/1", "d/e/2", "z.txt"], &["/[id]", "/x"]);
    let lines = Routes::new(&manifest).unwrap().lines(&manifest);
    let lines: Vec<String> = lines.iter().map(|line| format!("{} {}", line.pattern, line.source)).collect();
    assert_eq!(
        lines,
        [
            "/x /x.py",
            "/a.txt public/a.txt",
            "/d/* public/d/ (2 files)",
            "/z.txt public/z.txt",
            "/[id] /[id].py"
        ]
    );
}

#[test]
fn many_files_at_the_top_are_one_line() {
    let names: Vec<String> = (0..1000).map(|n| format!("{n:04}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let manifest = manifest(&names, &[]);
    let lines = Routes::new(&manifest).unwrap().lines(&manifest);
    assert_eq!((lines.len(), lines[0].source.as_str()), (1, "public/ (1000 files)"));
}

#[test]
fn two_workers_with_the_same_route_are_refused() {
    for patterns in [["/a", "/a"], ["/[id]", "/[name]"]] {
        let error = Routes::new(&manifest(&[], &patterns)).unwrap_err();
        assert!(matches!(error, RouteError::Conflict { .. }));
    }
}
