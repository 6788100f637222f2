//! The protocol of Wasm Workers Server.

use crate::guest::{ECHO_ESCAPED, printing};
use crate::served::{Response, Served};

fn served(output: &[u8], body: &str, settings: &str) -> Served {
    let program = printing(output, body);
    let settings = format!("[workers.\"api/[id]\"]\nabi = \"wws\"\n{settings}");
    Served::new(&[("api/[id].wasm", &program), ("wharf.toml", settings.as_bytes())])
}

fn answer(output: &str) -> Response {
    served(output.as_bytes(), "", "").get("/api/7")
}

#[test]
fn the_document_is_the_response() {
    let response =
        answer(r#"{"data": "hello", "status": 202, "headers": {"x_made_by": "kit"}, "kv": {"a": "b"}}"#);
    assert_eq!((response.status, response.text()), (202, "hello"));
    assert_eq!(response.header("x-made-by"), Some("kit"));
    assert_eq!(response.header("content-type"), Some("text/html"));
    assert_eq!(response.header("content-length"), Some("5"));
    let bytes = answer(r#"{"data": "AAH/", "status": 200, "headers": {}, "base64": true}"#);
    assert_eq!(bytes.body, [0, 1, 255]);
}

#[test]
fn the_request_is_a_document_on_stdin() {
    // The guest's answer is the text of the document that it got.
    let escape = format!("{ECHO_ESCAPED} (call $write (i32.const 4136) (i32.const 2))");
    let output = b"{\"status\":200,\"headers\":{},\"data\":\"";
    let mut data = [b' '; 42];
    data[..output.len()].copy_from_slice(output);
    data[40..].copy_from_slice(b"\"}");
    let body = format!("(call $write (i32.const 4096) (i32.const {})) {escape}", output.len());
    let program = crate::guest::module(&data, &body);
    let app =
        Served::new(&[("api/[id].wasm", &program), ("wharf.toml", b"[workers.\"api/[id]\"]\nabi = \"wws\"")]);
    let response = app.request(
        "PUT /api/a%20b?q=1 HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\nContent-Length: 6\r\n\
         Accept: a\r\nAccept: b\r\nWharf-Params: id=no\r\n\r\n\"\\\" \u{e4}",
    );
    let mut document: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    // Different each time, and the host's own word.
    let headers = document["headers"].as_object_mut().unwrap();
    for name in ["traceparent", "x-forwarded-for", "x-forwarded-proto", "x-request-id"] {
        assert!(headers.remove(name).is_some(), "{name}");
    }
    let expected = serde_json::json!({
        "url": "http://app.example/api/a%20b?q=1",
        "method": "PUT",
        "headers": {"host": "app.example", "connection": "close", "content-length": "6", "accept": "a, b"},
        "body": "\"\\\" \u{e4}",
        "kv": {},
        "params": {"id": "a b"},
    });
    assert_eq!(document, expected);
}

#[test]
fn output_that_is_no_document_is_500() {
    for output in ["", "hello", r#"{"data": "x"}"#, r#"{"data": "x", "status": 101}"#] {
        assert_eq!(answer(output).status, 500, "{output:?}");
    }
}

#[test]
fn a_guest_that_fails_is_500_whatever_it_wrote() {
    let output = br#"{"data": "hello", "status": 200}"#;
    for end in ["(call $exit (i32.const 3))", "unreachable"] {
        assert_eq!(served(output, end, "").get("/api/7").status, 500, "{end}");
    }
    assert_eq!(served(output, "(call $exit (i32.const 0))", "").get("/api/7").status, 200);
}

#[test]
fn a_guest_without_end_is_504_and_one_without_measure_500() {
    let settings = "timeout = \"100ms\"";
    assert_eq!(served(b"{", crate::guest::FOREVER, settings).get("/api/7").status, 504);
    assert_eq!(served(b"{", crate::guest::POUR, "").get("/api/7").status, 500);
}

#[test]
fn a_body_past_the_limit_is_413() {
    let app = served(br#"{"data": "", "status": 200}"#, "", "body = \"3B\"");
    let request = |body: &str| {
        let length = body.len();
        app.request(&format!(
            "POST /api/7 HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    };
    assert_eq!((request("abcd").status, request("abc").status), (413, 200));
}
