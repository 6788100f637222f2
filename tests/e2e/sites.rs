//! Well-known WebAssembly of the browser, as sites: examples/sites in headless
//! Chromium, with every other host out of reach.

use serde_json::json;
use wharf_tests::browser::Browser;
use wharf_tests::network::Namespace;
use wharf_tests::process::Daemon;
use wharf_tests::testbed;
use wharf_tests::wharf::{Wharf, text};

const URL: &str = "http://127.0.0.1:8080";

/// A site that is served in a network of its own, and a browser in it. Fields are
/// dropped in order: the network last.
struct Site {
    browser: Browser,
    _server: Daemon,
    _wharf: Wharf,
    _network: Namespace,
}

impl Site {
    fn serve(name: &str) -> Self {
        let project = testbed::repository().join("examples/sites").join(name);
        let built = project.join("public/vendor");
        assert!(built.exists(), "cannot find {}: run examples/sites/build.sh", built.display());
        let network = Namespace::create();
        let wharf = Wharf::new();
        let mut command = wharf.command(&network, &["serve", text(&project), "--addr", "127.0.0.1:8080"]);
        let mut server = Daemon::start("wharf-serve", wharf.scratch(), &mut command);
        server.wait_until("it printed its URL", |server| server.log().contains(URL).then_some(()));
        let browser = Browser::start(&network);
        Self { browser, _server: server, _wharf: wharf, _network: network }
    }

    /// Opens the page at `path`, or loads it again.
    fn open(&mut self, path: &str) {
        self.browser.open(&format!("{URL}{path}"));
    }

    fn text(&mut self, selector: &str, text: &str) -> String {
        self.browser.text(selector, text)
    }

    fn fill(&mut self, selector: &str, value: &str) {
        let script = format!("document.querySelector({}).value = {}", json!(selector), json!(value));
        self.browser.evaluate(&script);
    }

    fn click(&mut self, selector: &str) {
        self.browser.evaluate(&format!("document.querySelector({}).click()", json!(selector)));
    }

    fn is_isolated(&mut self) -> bool {
        self.browser.evaluate("crossOriginIsolated") == json!(true)
    }

    /// Waits until the page's frame has `text`: all of its text.
    fn framed(&mut self, text: &str) -> String {
        let script = format!(
            "new Promise((resolve) => {{
                const end = Date.now() + 120_000;
                (function look() {{
                    const shown = frames[0].document.body?.innerText ?? '';
                    if (shown.includes({}) || Date.now() > end) resolve(shown);
                    else setTimeout(look, 100);
                }})();
            }})",
            json!(text)
        );
        let shown = self.browser.evaluate(&script);
        let shown = shown.as_str().unwrap_or_default();
        assert!(shown.contains(text), "expected {text:?} in the frame: {shown}");
        shown.to_owned()
    }
}

#[test]
fn pyodide_runs_what_is_typed_and_is_stopped() {
    let mut site = Site::serve("pyodide");
    site.open("/");
    assert!(site.is_isolated());
    site.text("#state", "is ready");
    site.fill(
        "#code",
        "import sqlite3\nprint('ahoy')\nsqlite3.connect(':memory:').execute('select 6 * 7').fetchone()",
    );
    site.click("#run");
    assert_eq!(site.text("#result", "42"), "(42,)");
    assert_eq!(site.text("#output", "ahoy").trim(), "ahoy");

    site.fill("#code", "while True: pass");
    site.click("#run");
    site.text("#state", "Running");
    site.click("#stop");
    site.text("#result.error", "KeyboardInterrupt");
    // It goes on after that.
    site.fill("#code", "'still ' + 'here'");
    site.click("#run");
    site.text("#result", "still here");
}

#[test]
fn sqlite_keeps_its_rows_in_a_file_of_the_browser() {
    let mut site = Site::serve("sqlite");
    site.open("/");
    assert!(site.is_isolated());
    site.text("#state", "/notes.sqlite3 by opfs: 0 notes");
    for note in ["buy milk", "'); drop table note; --"] {
        site.fill("#text", note);
        site.click("button");
        site.text("#notes li", note);
    }
    site.open("/");
    site.text("#state", "/notes.sqlite3 by opfs: 2 notes");
    site.text("#notes li", "buy milk");
}

#[test]
fn pglite_keeps_its_tables_in_the_browser() {
    let mut site = Site::serve("pglite");
    site.open("/");
    site.text("#state", "is ready");
    // What the page proposes.
    site.click("#run");
    assert_eq!(site.text("#rows", "/about"), "path\tcount\n/\t1\n/about\t1");
    site.fill("#sql", "select 1 / 0");
    site.click("#run");
    site.text("#error", "division by zero");

    site.open("/");
    site.text("#state", "is ready");
    site.fill("#sql", "select count(*) as visits from visit");
    site.click("#run");
    assert_eq!(site.text("#rows", "2"), "visits\n2");
}

#[test]
fn wordpress_publishes_a_post_and_keeps_it() {
    let mut site = Site::serve("wordpress");
    site.open("/");
    site.text("#state", "WordPress 6.5");
    site.framed("Sample Page");
    site.fill("[name=title]", "Ahoy");
    site.fill("[name=content]", "Written in a browser.");
    site.click("form button");
    site.text("#state", "Published “Ahoy”");
    site.framed("Written in a browser.");

    // A link to the dashboard, which comes to the page first, and after that to the frame.
    site.open("/site/wp-admin/edit.php");
    site.text("#state", "WordPress 6.5");
    let posts = site.framed("Ahoy");
    assert!(posts.contains("Published (2)"), "{posts}");
    // The dashboard's styles and scripts are there.
    assert_eq!(
        site.browser
            .evaluate("getComputedStyle(frames[0].document.querySelector('#adminmenu')).listStyleType"),
        json!("none")
    );
    assert_eq!(site.browser.evaluate("typeof frames[0].jQuery"), json!("function"));
    // Nothing was asked of another host.
    let foreign = "frames[0].performance.getEntriesByType('resource')\
        .filter(({ name }) => !name.startsWith(location.origin)).map(({ name }) => name)";
    assert_eq!(site.browser.evaluate(foreign), json!([]));
}
