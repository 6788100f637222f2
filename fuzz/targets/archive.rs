//! An archive that anyone may have made, loaded into a layout.
//!
//! An input that begins as a tar is one, with its checksums put right. Any
//! other is documents parted by lines of `---`, the first of which is
//! `index.json` and the others blobs, so that digests fit: in each, `@N` stands
//! for the digest of a later document and `#N` for its size.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use wharf_fuzz::{files, fix_checksums, tar};
use wharf_images::{Digest, Layout, load};

const PARTING: &[u8] = b"\n---\n";

fuzz_target!(|input: &[u8]| {
    let archive = if input.get(257..262) == Some(b"ustar") {
        let mut archive = input.to_vec();
        fix_checksums(&mut archive);
        archive
    } else {
        composed(input)
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("archive.tar");
    fs::write(&path, archive).expect("a file");
    let layout = Layout::create(folder.path().join("layout")).expect("a layout");
    let before = files(layout.root());
    match load(&layout, &path) {
        Ok(entries) => {
            assert!(layout.list().expect("a list").len() <= entries.len());
            for entry in &entries {
                layout.verify(&entry.descriptor).expect("what was loaded is whole");
                if let Some(reference) = &entry.reference {
                    layout.resolve(reference).expect("what was loaded has its name");
                }
            }
            layout.prune().expect("a layout that can be pruned");
            for entry in &entries {
                // Of several with one name the last one has it.
                if layout.list().expect("a list").iter().any(|listed| listed.descriptor.digest == entry.descriptor.digest) {
                    layout.verify(&entry.descriptor).expect("what is listed is kept");
                }
            }
        }
        Err(error) => {
            let _ = (error.to_string(), error.hint());
            assert_eq!(files(layout.root()), before, "{error}");
        }
    }
});

fn composed(input: &[u8]) -> Vec<u8> {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    let mut rest = input;
    while let Some(at) = rest.windows(PARTING.len()).position(|window| window == PARTING) {
        parts.push(rest[..at].into());
        rest = &rest[at + PARTING.len()..];
    }
    parts.push(rest.into());
    parts.truncate(10);
    for at in (0..parts.len()).rev() {
        parts[at] = filled(&parts[at], at, &parts);
    }
    let index = parts.remove(0);
    let mut entries = vec![
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".to_owned(), index),
    ];
    entries.extend(parts.into_iter().map(|part| (format!("blobs/sha256/{}", Digest::of(&part).encoded()), part)));
    tar(&entries)
}

/// A document with digests and sizes of later ones in their places.
fn filled(part: &[u8], at: usize, parts: &[Vec<u8>]) -> Vec<u8> {
    let mut filled = Vec::with_capacity(part.len());
    let mut bytes = part.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let number = bytes.peek().and_then(|next| char::from(*next).to_digit(10)).map(|number| number as usize);
        let later = number.filter(|number| *number > at).and_then(|number| parts.get(number));
        match (byte, later) {
            (b'@', Some(later)) => filled.extend_from_slice(Digest::of(later).to_string().as_bytes()),
            (b'#', Some(later)) => filled.extend_from_slice(later.len().to_string().as_bytes()),
            _ => {
                filled.push(byte);
                continue;
            }
        }
        bytes.next();
    }
    filled
}
