//! `wharf dev`: pages that load themselves again, and errors in the browser.

use nix::sys::signal::Signal;
use wharf_tests::browser::Browser;
use wharf_tests::fixture;
use wharf_tests::network::Host;
use wharf_tests::process::Daemon;
use wharf_tests::project::Project;
use wharf_tests::wharf::{Wharf, text};

const WORKER: &str = "def worker(request):\n    return Response('<p id=x>one</p>')\n";

fn dev(wharf: &Wharf, project: &Project) -> (Daemon, String) {
    let arguments = ["dev", text(project.path()), "--addr", "127.0.0.1:0"];
    let mut command = wharf.command(&Host, &arguments);
    let mut daemon = Daemon::start("wharf-dev", wharf.scratch(), &mut command);
    let url = daemon.wait_until("it printed its URL", |daemon| {
        let log = daemon.log();
        let (_, rest) = log.split_once("http://127.0.0.1:")?;
        let (port, _) = rest.split_once('\n')?;
        Some(format!("http://127.0.0.1:{}", port.trim_end()))
    });
    (daemon, url)
}

#[test]
fn a_page_and_a_worker_are_shown_as_they_are_edited() {
    let wharf = fixture::with_python(Wharf::new());
    let project = Project::empty().with("index.py", WORKER).with("public/about.html", "<p id=y>page one</p>");
    let write = |path: &str, content: &str| fs_err::write(project.path().join(path), content).unwrap();
    let (_dev, url) = dev(&wharf, &project);
    let mut browser = Browser::start(&Host);

    browser.open(&format!("{url}/about"));
    browser.text("#y", "page one");
    browser.evaluate("window.before = true");
    write("public/about.html", "<p id=y>page two</p>");
    browser.text("#y", "page two");
    assert!(browser.evaluate("window.before ?? null").is_null(), "the page was loaded again");

    browser.open(&url);
    browser.text("#x", "one");
    write("index.py", &WORKER.replace("one", "two"));
    browser.text("#x", "two");
}

#[test]
fn an_error_is_shown_with_its_code_until_it_is_mended() {
    let wharf = fixture::with_python(Wharf::new());
    let project = Project::empty().with("index.py", WORKER);
    let write = |content: &str| fs_err::write(project.path().join("index.py"), content).unwrap();
    let (_dev, url) = dev(&wharf, &project);
    let mut browser = Browser::start(&Host);
    browser.open(&url);
    browser.text("#x", "one");

    write("def worker(request):\n    return Response(\n");
    let shown = browser.text("#wharf-overlay", "The build failed");
    assert!(shown.contains("index.py:2") && shown.contains("return Response("), "{shown}");
    write(&WORKER.replace("one", "mended"));
    browser.text("#x", "mended");
    browser.gone("#wharf-overlay");

    write("def worker(request):\n    left = 1\n    return Response(str(left / 0))\n");
    let shown = browser.text("#wharf-overlay", "A worker failed");
    assert!(shown.contains("index.py:3") && shown.contains("left / 0"), "{shown}");
    assert!(shown.contains("ZeroDivisionError"), "{shown}");
    write(WORKER);
    browser.text("#x", "one");
    browser.gone("#wharf-overlay");
}

#[test]
fn a_project_that_is_broken_at_first_is_served_once_it_is_mended() {
    let wharf = Wharf::new();
    let project =
        Project::empty().with("public/index.html", "<p id=x>hello</p>").with("wharf.toml", "x = 1\n");
    let (mut dev, url) = dev(&wharf, &project);
    let mut browser = Browser::start(&Host);
    browser.open(&url);
    browser.text("#wharf-overlay", "unknown field `x`");
    fs_err::write(project.path().join("wharf.toml"), "").unwrap();
    browser.text("#x", "hello");
    drop(browser);
    let (code, took) = dev.end_by(Signal::SIGTERM);
    assert_eq!(code, Some(0), "{took:?}");
}
