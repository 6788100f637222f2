//! JupyterLite in headless Chromium, served by a container, with every other
//! host out of reach.

use wharf_tests::browser::run_notebook;
use wharf_tests::engine::{Docker, Generation, Store};
use wharf_tests::fixture::{PYTHON, push_python};
use wharf_tests::registry::Registry;

#[test]
fn a_notebook_computes_and_asks_sqlite_in_the_browser() {
    let docker = Docker::start(Generation::Forky, Store::Containerd);
    let network = docker.network();
    let _registry = Registry::start(network);
    push_python(network);
    let run = ["run", "--detach", "--name", "app", "--runtime=io.containerd.wasm"];
    docker.docker(&[&run[..], &["--publish", "127.0.0.1:8080:8080", PYTHON]].concat()).succeeded();
    assert_eq!(docker.answer_of("app", "http://127.0.0.1:8080").status, 200);
    let answers = run_notebook(network, "http://127.0.0.1:8080", "hello.ipynb", 2);
    assert_eq!(answers, ["2", "[('Barbara',), ('Grace',)]"]);
}
