//! The document that a worker of the wws protocol wrote.
#![no_main]

// The parser alone: the host around it would take wasmtime along.
#[allow(dead_code)]
#[path = "../../host/src/worker/wws.rs"]
mod wws;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|output: &[u8]| {
    // A request's body goes in as text and must come out as a document.
    if let Ok(body) = std::str::from_utf8(output) {
        let input = wws::Input {
            url: "http://localhost/".into(),
            method: "POST",
            headers: [("x", body.to_owned())].into(),
            body,
            kv: &[(body.to_owned(), body.to_owned())].into(),
            params: [("id", body)].into(),
        };
        let document: serde_json::Value = serde_json::from_slice(&input.to_json()).expect("JSON");
        assert_eq!(document["body"], body);
        assert_eq!(document["params"]["id"], body);
    }
    let Ok(wws::Answer { response, .. }) = wws::answer(output) else { return };
    assert!((200..600).contains(&response.status().as_u16()));
    assert!(response.headers().contains_key("content-type"));
    for unsent in ["content-length", "connection", "transfer-encoding"] {
        assert!(!response.headers().contains_key(unsent), "{unsent}");
    }
});
