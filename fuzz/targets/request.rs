//! Bytes on a connection: whatever they are, nothing panics, hangs, fails or
//! gets out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_fuzz::site;

fuzz_target!(|bytes: &[u8]| {
    site::with(|site| {
        let answer = site.converse(bytes);
        // HTTP/1.1, or a frame of HTTP/2 (SETTINGS come first), or nothing.
        if answer.is_empty() || bytes.starts_with(b"PRI * HTTP/2.0") {
            return;
        }
        let text = String::from_utf8_lossy(&answer[..answer.len().min(200)]);
        let status = text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse::<u16>().ok());
        let status = status.unwrap_or_else(|| panic!("{text:?}"));
        assert!((200..500).contains(&status), "{text:?}");
    });
});
