//! Layouts made by others.

use super::*;

#[test]
fn a_layout_whose_files_are_no_files_is_refused_at_once() {
    let reference: Reference = "a.b/c:1".parse().unwrap();
    let sample = sample(&reference, 1000);
    let blob = sample.layout.blob_path(&sample.layer.digest);
    let marker = sample.layout.root().join("oci-layout");
    let list = sample.layout.root().join("index.json");
    for path in [&blob, &list, &marker] {
        let content = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
        let error = at_once(sample.layout.root().into(), reference.clone()).expect_err("a layout of fifos");
        assert!(words(&error).contains("expected a file"), "{}", words(&error));
        fs::remove_file(path).unwrap();
        fs::write(path, content).unwrap();
    }
    // A device that never ends.
    fs::remove_file(&list).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &list).unwrap();
    let error = at_once(sample.layout.root().into(), reference).expect_err("an endless index");
    assert!(words(&error).contains("expected a file"), "{}", words(&error));
}

/// Verifies an image on a thread of its own, which a fifo would hold for ever.
fn at_once(root: PathBuf, reference: Reference) -> Result<(), LayoutError> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let verify = |root: &Path| -> Result<(), LayoutError> {
            let layout = Layout::open(root)?;
            let image: Descriptor = layout.resolve(&reference)?;
            layout.verify(&image)
        };
        let _ = sender.send(verify(&root));
    });
    receiver.recv_timeout(Duration::from_secs(20)).expect("it hangs")
}

// Found by the fuzz target `index`.
#[test]
fn a_name_by_digest_is_only_that_of_what_has_the_digest() {
    let image = manifest(&descriptor(CONFIG, b"{}"), &[]);
    let (right, other) = (Digest::of(&image), Digest::of(b"other"));
    for (digest, expected) in [(right, Some(right)), (other, None)] {
        let listed = index(&[named(MANIFEST, &image, &format!("a.b/c@{digest}"))]);
        let (_folder, layout, result) = loaded(&layout_archive(&listed, &[&image, b"{}"]));
        let reference = result.unwrap().remove(0).reference;
        assert_eq!(reference.as_ref().and_then(Reference::digest), expected);
        if let Some(reference) = reference {
            assert_eq!(layout.resolve(&reference).unwrap().digest, right);
        }
    }
}

#[test]
fn names_of_a_foreign_layout_do_not_reach_the_terminal_as_commands() {
    let (_folder, layout) = empty();
    let mut image = named(MANIFEST, b"{}", "\u{1b}[2Jevil");
    image["platform"] = json!({ "architecture": "\u{1b}[2J", "os": "\u{7}" });
    let child = image.clone();
    let listed = layout.write_blob(MediaType::Index, &index(&[child])).unwrap();
    let mut top = serde_json::to_value(&listed).unwrap();
    top["annotations"] = json!({ "org.opencontainers.image.ref.name": "\u{1b}[2Jevil" });
    fs::write(layout.root().join("index.json"), index(&[top, image])).unwrap();
    for entry in layout.list().unwrap() {
        assert_eq!(entry.name, None);
    }
    let unknown: Reference = "a.b/c:1".parse().unwrap();
    for error in [layout.sole().unwrap_err(), layout.resolve(&unknown).unwrap_err()] {
        assert_plain(&words(&error));
        assert_plain(&error.hint().unwrap_or_default());
    }
    let error = layout.select(&listed, &[Platform::linux_amd64()]).unwrap_err();
    assert_plain(&words(&error));
}
