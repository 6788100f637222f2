//! Manifests and configurations that anyone may have written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_images::{ImageConfig, Manifest};

fuzz_target!(|json: &[u8]| {
    if let Ok(manifest) = serde_json::from_slice::<Manifest>(json) {
        assert_eq!(manifest.blobs().count(), 1 + manifest.layers.len());
        let written = serde_json::to_vec(&manifest).expect("what was read can be written");
        let again: Manifest = serde_json::from_slice(&written).expect("what was written can be read");
        assert_eq!(again, manifest);
    }
    if let Ok(config) = serde_json::from_slice::<ImageConfig>(json) {
        let written = serde_json::to_vec(&config).expect("what was read can be written");
        let again: ImageConfig = serde_json::from_slice(&written).expect("what was written can be read");
        assert_eq!(again, config);
    }
});
