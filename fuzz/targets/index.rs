//! The index of a layout that anyone may have made.
#![no_main]

use std::cell::RefCell;
use std::fs;

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use wharf_images::{Index, Layout, Platform, Reference};

thread_local! {
    /// Made once: only its index changes.
    static LAYOUT: RefCell<Option<(TempDir, Layout)>> = const { RefCell::new(None) };
}

fuzz_target!(|json: &[u8]| {
    if let Ok(index) = serde_json::from_slice::<Index>(json) {
        let written = serde_json::to_vec(&index).expect("what was read can be written");
        let again: Index = serde_json::from_slice(&written).expect("what was written can be read");
        assert_eq!(again, index);
    }
    LAYOUT.with_borrow_mut(|layout| {
        let (_, layout) = layout.get_or_insert_with(|| {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let layout = Layout::create(folder.path().join("layout")).expect("a layout");
            (folder, layout)
        });
        fs::write(layout.root().join("index.json"), json).expect("an index");
        use_it(layout);
    });
});

fn use_it(layout: &Layout) {
    let _ = layout.sole();
    let _ = layout.prune();
    let Ok(entries) = layout.list() else { return };
    let unknown: Reference = "example.org/unknown:1".parse().expect("a reference");
    let _ = layout.resolve(&unknown);
    for entry in entries.into_iter().take(16) {
        // The layout has no blobs, so that all of these say so.
        assert!(layout.manifests(&entry.descriptor).is_err());
        assert!(layout.select(&entry.descriptor, &[Platform::linux_amd64()]).is_err());
        if let Some(reference) = &entry.reference {
            layout.resolve(reference).expect("what is listed can be resolved");
        }
    }
}
