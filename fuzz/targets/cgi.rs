//! The head of a CGI response that a worker wrote, in whatever pieces.
#![no_main]

// The parser alone: the host around it would take wasmtime along.
#[allow(dead_code)]
#[path = "../../host/src/worker/cgi/head.rs"]
mod head;

use head::{Head, head_length};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|output: &[u8]| {
    let length = head_length(output, 0);
    // What comes in pieces ends where it would have ended in one.
    let middle = output.len() / 2;
    let in_pieces = head_length(&output[..middle], 0).or_else(|| head_length(output, middle));
    assert_eq!(in_pieces, length);
    let Some(length) = length else { return };
    assert!(length <= output.len() && output[length - 1] == b'\n');
    let Ok(head) = Head::parse(&output[..length]) else { return };
    assert!((200..600).contains(&head.status.as_u16()));
    for unsent in ["status", "connection", "transfer-encoding", "keep-alive", "upgrade"] {
        assert!(!head.headers.contains_key(unsent), "{unsent}");
    }
    let lengths = head.headers.get_all("content-length");
    assert!(lengths.iter().count() <= 1);
    for length in lengths {
        assert!(length.to_str().is_ok_and(|length| length.parse::<u64>().is_ok()));
    }
});
