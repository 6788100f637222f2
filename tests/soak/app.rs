//! The app that is soaked: files, and workers in Rust, JavaScript and Python.

use wharf_tests::fixture;
use wharf_tests::isolation;
use wharf_tests::project::Project;
use wharf_tests::testbed;
use wharf_tests::wharf::Wharf;

/// Bytes of the large file.
pub(crate) const LARGE: usize = 1024 * 1024;

/// Bytes of the small file.
pub(crate) const SMALL: usize = 1024;

/// The one worker that runs out of time has little of it.
const SETTINGS: &str = "[workers.\"api/slow\"]\ntimeout = \"100ms\"\n";

/// The project.
///
/// # Panics
/// If a guest was not built; the message names the script that does.
pub(crate) fn project() -> Project {
    let guest = |name: &str| {
        let guest = testbed::part(&format!("guests/{name}.wasm"), &format!("guests.sh {name}"));
        fs_err::read(guest).expect("the guest can be read")
    };
    let _ = fixture::with_python(Wharf::new());
    Project::hello()
        .with("public/small.txt", vec![b's'; SMALL])
        .with("public/large.bin", vec![b'l'; LARGE])
        .with("public/script.js", "export const greeting = 'hello';\n".repeat(200))
        .with("api/probe.wasm", guest("probe"))
        .with("api/slow.wasm", isolation::another(&guest("probe")))
        .with("api/js.wasm", guest("js-hello"))
        .with(
            "api/python.py",
            "def worker(request):\n    return Response('hello ' + request.args.get('n', ''))\n",
        )
        .with("wharf.toml", SETTINGS)
}
