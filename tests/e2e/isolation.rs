//! What one request leaves, no other sees. `make soak` runs the same hunt with
//! more searches.

use std::net::SocketAddr;

use wharf_tests::isolation;
use wharf_tests::network::Namespace;
use wharf_tests::unpacked::Unpacked;

/// Searches in all: some ten seconds' worth.
const SEARCHES: u64 = 2_000;

#[test]
fn no_byte_of_one_request_is_seen_by_another_on_any_process() {
    let network = Namespace::create();
    let app = Unpacked::build(isolation::project().path());
    let address: SocketAddr = "127.0.0.1:8080".parse().unwrap();
    let server = app.serve(&network, address, "/");
    let hunt = network.enter(|| isolation::hunt(server.id(), address, SEARCHES));
    assert!(hunt.searches.values().sum::<u64>() >= SEARCHES, "{hunt:?}");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    assert!(hunt.searches.len() >= cores.min(2), "the load is work for two processes: {hunt:?}");
    assert!(hunt.secrets > SEARCHES / 4, "{hunt:?}");
}
