//! An app manifest that anyone may have written, and its routes.
#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use wharf_app::{Manifest, Pattern, Routes};

fuzz_target!(|json: &[u8]| {
    if let Ok(Ok(pattern)) = std::str::from_utf8(json).map(str::parse::<Pattern>) {
        assert_eq!(pattern.to_string().parse::<Pattern>().ok().as_ref(), Some(&pattern));
        let _ = pattern.matches("/a/b");
    }
    let Ok(manifest) = Manifest::parse(json) else { return };
    let written = manifest.to_json();
    assert_eq!(Manifest::parse(&written).expect("what was written can be read"), manifest);
    let paths = manifest.site.files.iter().map(|file| &file.path);
    for path in paths.chain(manifest.components.iter().map(|component| &component.file)) {
        assert!(Path::new(path).components().all(|part| matches!(part, Component::Normal(_))), "{path:?}");
    }
    let Ok(routes) = Routes::new(&manifest) else { return };
    assert!(routes.lines(&manifest).len() >= manifest.workers.len());
    for file in &manifest.site.files {
        let _ = routes.resolve(&format!("/{}", file.path));
    }
    for worker in &manifest.workers {
        let _ = routes.resolve(&worker.pattern);
    }
});
