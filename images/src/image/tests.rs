use super::*;
use crate::Digest;
use crate::sample::universal;

#[test]
fn the_same_image_has_the_same_digest() {
    assert_eq!(universal().index, universal().index);
}

#[test]
fn an_index_lists_manifests_with_their_platforms_in_order() {
    let sample = universal();
    let bytes = sample.layout.read_blob(&sample.index).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(json["schemaVersion"], 2);
    assert_eq!(json["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(json["artifactType"], serde_json::Value::Null);
    let platforms: Vec<_> =
        json["manifests"].as_array().unwrap().iter().map(|child| &child["platform"]).collect();
    assert_eq!(*platforms[0], serde_json::json!({"architecture": "amd64", "os": "linux"}));
    assert_eq!(*platforms[1], serde_json::json!({"architecture": "wasm", "os": "wasi"}));
}

#[test]
fn a_configuration_has_a_diff_id_and_a_history_entry_for_each_layer() {
    let sample = universal();
    let (_, manifest) = sample.layout.select(&sample.index, &[Platform::linux_amd64()]).unwrap();
    let config = sample.layout.read_config(&manifest).unwrap();
    assert_eq!(manifest.layers.len(), 2);
    assert_eq!(config.rootfs.diff_ids.len(), 2);
    assert_eq!(config.rootfs.diff_ids[1], sample.site.diff_id);
    assert_eq!(config.history.len(), 2);
    assert_eq!(config.history[1].created_by.as_deref(), Some("site"));
    assert_eq!(config.created.as_deref(), Some("1970-01-01T00:00:00Z"));
    assert_eq!(config.config.user.as_deref(), Some("65532:65532"));
}

#[test]
fn platforms_share_layers_by_digest() {
    let sample = universal();
    let manifests = sample.layout.manifests(&sample.index).unwrap();
    assert_eq!(manifests[0].1.layers[1], manifests[1].1.layers[0]);
}

#[test]
fn a_layer_that_is_not_in_the_layout_makes_no_image() {
    let sample = universal();
    let mut layer = sample.site.clone();
    layer.descriptor.digest = Digest::of(b"elsewhere");
    let builder = ImageBuilder::new(Platform::linux_amd64(), ContainerConfig::default()).layer(layer, "x");
    assert!(matches!(builder.write(&sample.layout), Err(LayoutError::NoSuchBlob { .. })));
}

#[test]
fn an_index_takes_no_index() {
    let sample = universal();
    let builder = IndexBuilder::new().manifest(sample.index.clone());
    assert!(matches!(builder.write(&sample.layout), Err(LayoutError::NotAnImage { .. })));
}
