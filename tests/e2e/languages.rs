//! Workers by each language's own tools.

mod frameworks;
mod go;
mod javascript;
mod new;
mod programs;
mod python;
mod ruby;
mod runtimes;

use wharf_tests::http::get;
use wharf_tests::network::Host;
use wharf_tests::wharf::Server;

/// The body at `path`, of status 200.
#[track_caller]
fn body(server: &Server, path: &str) -> String {
    let response = get(&Host, &server.at(path));
    assert_eq!(response.status, 200, "{path}: {response:?}\n{}", server.daemon.log());
    response.body
}
