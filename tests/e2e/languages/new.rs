//! `wharf new`: what it makes runs as it is.

use wharf_tests::fixture::{Tools, with_tools};
use wharf_tests::http::get;
use wharf_tests::network::Host;
use wharf_tests::testbed;
use wharf_tests::wharf::{Wharf, text};

macro_rules! templates {
    ($($name:ident: $tools:expr,)+) => {$(
        #[test]
        fn $name() {
            runs(stringify!($name), $tools);
        }
    )+};
}

templates! {
    python: Some(Tools::Python),
    javascript: Some(Tools::JavaScript),
    typescript: Some(Tools::JavaScript),
    ruby: Some(Tools::Ruby),
    go: Some(Tools::Go),
    rust: None,
    c: None,
}

fn runs(template: &str, tools: Option<Tools>) {
    let wharf = tools.into_iter().fold(Wharf::new(), with_tools);
    let project = wharf.scratch().join("made");
    wharf.run(&["new", text(&project), "--template", template]).succeeded();
    let server = wharf.serve_by(text(&project), &[], |command| _ = testbed::with_wasm_toolchain(command));
    assert_eq!(get(&Host, &server.at("/")).status, 200);
    let hello = get(&Host, &server.at("/api/hello"));
    assert_eq!(hello.status, 200, "{}", server.daemon.log());
    assert!(hello.body.to_lowercase().contains("hello"), "{hello:?}");
    // It is the user's, and nobody's else.
    let again = wharf.run(&["new", text(&project), "--template", template]).refusal();
    assert!(again.contains("made"), "{again}");
}
