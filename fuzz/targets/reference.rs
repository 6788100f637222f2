//! A reference that is read prints as one that is read the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_images::{Digest, Platform, Reference};

fuzz_target!(|text: &str| {
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse::<Reference>().as_ref(), Ok(&reference));
        assert_eq!(reference.familiar().parse::<Reference>().as_ref(), Ok(&reference));
        let by_digest = reference.with_digest(Digest::of(b""));
        assert_eq!(by_digest.to_string().parse::<Reference>().as_ref(), Ok(&by_digest));
        // All of it goes into URLs as it stands.
        assert!(reference.to_string().bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(!reference.repository().contains(".."));
        let _ = reference.is_loopback();
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.to_string(), text);
    }
});
