//! The peer: `wasmtime serve` of the release that wharf's engine is, at the flags
//! that are best for a guest.

use std::path::{Path, PathBuf};
use std::time::Duration;

use wharf_tests::http::try_get;
use wharf_tests::network::{Host, Namespace, Network};
use wharf_tests::process::{Daemon, run, wait_for};
use wharf_tests::testbed;
use wharf_tests::wharf::text;

use crate::load::{Server, wrk};

/// How long each set of flags is tried.
const TRIAL: Duration = Duration::from_secs(2);

const KEEP_2: &str = "-Opooling-memory-keep-resident=2097152";
const KEEP_64: &str = "-Opooling-memory-keep-resident=67108864";
const KEEP_TABLES: &str = "-Opooling-table-keep-resident=4194304";
const KEEP_STACKS: &str = "-Opooling-async-stack-keep-resident=131072";
const LARGE_TABLES: &str = "-Opooling-table-elements=50000";
const SCAN: &str = "-Opooling-pagemap-scan=y";

/// What is tried: each is best for some guest on some machine. `serve` pools
/// instances unless it is told not to.
const FLAGS: [&[&str]; 6] = [
    &[],
    &["-Opooling-allocator=n"],
    &[KEEP_2, KEEP_TABLES, KEEP_STACKS, LARGE_TABLES],
    &[KEEP_64, KEEP_TABLES, KEEP_STACKS, LARGE_TABLES],
    &[SCAN, KEEP_2, KEEP_TABLES, KEEP_STACKS, LARGE_TABLES],
    &[SCAN, KEEP_64, KEEP_TABLES, KEEP_STACKS, LARGE_TABLES],
];

/// Whether an instance answers one request, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instances {
    Fresh,
    Reused,
}

/// A component, compiled, and the flags that serve it best.
#[derive(Debug)]
pub(crate) struct Peer {
    program: PathBuf,
    code: PathBuf,
    instances: Instances,
    flags: &'static [&'static str],
    /// The flags and what they reached, for people.
    pub(crate) note: String,
}

impl Peer {
    /// Compiles `component` into `scratch` and tries all flags.
    ///
    /// # Panics
    /// If none of them works.
    pub(crate) fn best(
        network: &Namespace,
        component: &Path,
        (address, path): (&str, &str),
        instances: Instances,
        scratch: &Path,
    ) -> Self {
        let program = testbed::part("wasmtime/bin/wasmtime", "wasmtime.sh");
        let code = scratch.join("wasmtime.cwasm");
        let mut compile = Host.command(program.as_os_str());
        run(compile.args(["compile", text(component), "-o", text(&code)])).succeeded();
        let mut peer = Self { program, code, instances, flags: &[], note: String::new() };
        let mut best: Option<(f64, &'static [&'static str])> = None;
        let mut last = String::new();
        for flags in FLAGS {
            peer.flags = flags;
            let tried = peer.try_start(network, (address, path), scratch);
            let reached = tried.and_then(|server| wrk(network, &server.url, TRIAL));
            match reached {
                Ok(sample) if best.is_none_or(|(requests, _)| sample.requests > requests) => {
                    best = Some((sample.requests, flags));
                }
                Ok(_) => {}
                // Flags that a guest is too large for are none of the best.
                Err(error) => last = error,
            }
        }
        let (requests, flags) =
            best.unwrap_or_else(|| panic!("wasmtime serve has no flags that work: {last}"));
        peer.flags = flags;
        let shown = if flags.is_empty() { "none".to_owned() } else { flags.join(" ") };
        peer.note = format!("best flags of wasmtime serve ({instances:?}): {shown}, {requests:.0} req/s");
        peer
    }

    /// Serves it on `address` until the value is dropped.
    ///
    /// # Panics
    /// If it does not come up.
    #[track_caller]
    pub(crate) fn serve(&self, network: &Namespace, at: (&str, &str), scratch: &Path) -> Server {
        self.try_start(network, at, scratch).unwrap_or_else(|error| panic!("wasmtime serve: {error}"))
    }

    fn try_start(
        &self,
        network: &Namespace,
        (address, path): (&str, &str),
        scratch: &Path,
    ) -> Result<Server, String> {
        let count = match self.instances {
            Instances::Fresh => "1",
            Instances::Reused => "1000000000",
        };
        let mut command = network.command(self.program.as_os_str());
        command
            .args(["serve", "-Scli", "-Skeyvalue", "--allow-precompiled", "--addr", address])
            .args(["--max-instance-reuse-count", count, "--no-logging-prefix"])
            .args(self.flags)
            .arg(&self.code);
        let mut daemon = Daemon::start("wasmtime", scratch, &mut command);
        let url = format!("http://{address}{path}");
        let answer = wait_for(Duration::from_secs(60), || match try_get(network, &url) {
            Some(answer) => Some(Ok(answer.status)),
            None => daemon.has_ended().then(|| Err(daemon.log())),
        });
        match answer {
            Some(Ok(200)) => Ok(Server { name: "wasmtime serve", url, daemon }),
            Some(Ok(status)) => Err(format!("{url}: expected 200, found {status}\n{}", daemon.log())),
            Some(Err(log)) => Err(log),
            None => Err(format!("{url}: nobody answers\n{}", daemon.log())),
        }
    }
}
