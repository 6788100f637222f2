//! `wharf.toml`: it is refused with a reason, or makes an app that can be read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_app::Config;
use wharf_fuzz::project;

fuzz_target!(|text: &str| {
    let Ok(config) = toml::from_str::<Config>(text) else { return };
    for worker in config.workers.values() {
        let _ = worker.limits();
    }
    assert!(config.image.standard_annotations().count() <= 10);
    project::build(&[("wharf.toml", text.as_bytes()), ("public/index.html", b"<p>")]);
});
