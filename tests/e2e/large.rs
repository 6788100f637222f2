//! A file that is larger than what wharf may hold in memory.

use std::io::Write;

use wharf_tests::chance::Chance;
use wharf_tests::layout;
use wharf_tests::network::Namespace;
use wharf_tests::process::Outcome;
use wharf_tests::project::Project;
use wharf_tests::registry::{ADDRESS, Registry};
use wharf_tests::wharf::{Wharf, text};

const MEBIBYTE: u64 = 1 << 20;
/// Most memory of a build and of a push, however large the files are.
const LIMIT: u64 = 64 * MEBIBYTE;
/// What is written again and again. gzip looks 32 KiB back and zstd a few MiB:
/// to them it is new each time.
const BLOCK: u64 = 16 * MEBIBYTE;

#[test]
fn a_file_of_256_mib_is_built_and_pushed_within_64_mib_of_memory() {
    builds_and_pushes(256 * MEBIBYTE);
}

#[test]
#[ignore = "takes minutes and 16 GB of disk: `make large`"]
fn a_file_of_4_gib_is_built_and_pushed_within_64_mib_of_memory() {
    builds_and_pushes(4096 * MEBIBYTE);
}

#[expect(clippy::print_stderr, reason = "`make large` shows the figures")]
fn builds_and_pushes(size: u64) {
    let project = Project::hello();
    let path = project.path().join("public/large.bin");
    let block = Chance::new().bytes(usize::try_from(BLOCK).expect("it fits into memory"));
    let mut file = fs_err::File::create(path).expect("a file can be made");
    for _ in 0..size / BLOCK {
        file.write_all(&block).expect("there is room on the disk");
    }
    drop(file);

    let within = |step: &str, outcome: Outcome| {
        let outcome = outcome.exited(0);
        let (peak, took) = (outcome.peak, outcome.took);
        eprintln!("{step} of {} MiB: {} MiB of memory, {took:?}", size / MEBIBYTE, peak / MEBIBYTE);
        assert!(peak > 0, "its memory was not seen");
        assert!(peak < LIMIT, "{step}: held {peak} bytes, expected less than {LIMIT}\n{}", outcome.report());
        outcome
    };
    let network = Namespace::create();
    let registry = Registry::start(&network);
    let (wharf, reference) = (Wharf::new(), format!("{ADDRESS}/large:1"));
    let built = within("build", wharf.run(&["build", text(project.path()), "-t", &reference]));
    let layer = layout::largest_layer(&wharf.store(), built.output().lines().last().unwrap_or_default());
    assert!(fs_err::metadata(layout::blob(&wharf.store(), &layer)).expect("it is there").len() >= size);
    let _ = within("push", wharf.run_in(&network, &["push", &reference]));
    assert!(registry.has("large", &layer), "the registry does not have {layer}");
}
