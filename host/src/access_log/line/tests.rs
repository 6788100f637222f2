use std::time::UNIX_EPOCH;

use http::HeaderMap;

use super::*;
use crate::proxies::{ForwardedBy, Peer, Secure, TrustedProxies};

/// What a line says of a request with this target, referer and user agent.
fn lines(target: &str, referer: &[u8], agent: &[u8]) -> (String, String) {
    let peer = Peer::Tcp("192.0.2.1:80".parse().unwrap());
    let client =
        TrustedProxies::default().client(ForwardedBy::XForwarded, peer, Secure::Plain, &HeaderMap::new());
    let (referer, agent) =
        (HeaderValue::from_bytes(referer).unwrap(), HeaderValue::from_bytes(agent).unwrap());
    let request_id = RequestId::new();
    let entry = Entry {
        ended: UNIX_EPOCH + Duration::from_millis(1_795_380_375_042),
        client: &client,
        method: &Method::GET,
        uri: &target.parse().unwrap(),
        version: Version::HTTP_11,
        status: 200,
        bytes: 512,
        duration: Duration::from_micros(1234),
        is_complete: true,
        route: "/api/[id]",
        referer: Some(&referer),
        user_agent: Some(&agent),
        request_id: &request_id,
        trace: Some(TraceContext { trace: 0xabc, parent: None, span: 0xdef, flags: 0 }),
    };
    let (mut text, mut json) = (Vec::new(), Vec::new());
    entry.text(&mut text);
    entry.json(&mut json);
    let id = request_id.to_string();
    let string = |bytes| String::from_utf8(bytes).unwrap().replace(&id, "ID");
    (string(text), string(json))
}

#[test]
fn a_line_has_the_form_that_tools_for_combined_logs_know() {
    let (text, json) = lines("/api/7?a=1", b"https://a.example/", b"curl/8");
    assert_eq!(
        text,
        "192.0.2.1 - - [22/Nov/2026:20:46:15 +0000] \"GET /api/7?a=1 HTTP/1.1\" 200 512 \
         \"https://a.example/\" \"curl/8\" 0.001234 \"/api/[id]\" ID 00000000000000000000000000000abc\n"
    );
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let expected = serde_json::json!({
        "time": "2026-11-22T20:46:15.042Z", "client": "192.0.2.1", "method": "GET", "target": "/api/7?a=1",
        "protocol": "HTTP/1.1", "status": 200, "bytes": 512, "duration_ms": 1.234, "complete": true,
        "route": "/api/[id]", "referer": "https://a.example/", "user_agent": "curl/8", "request_id": "ID",
        "trace_id": "00000000000000000000000000000abc", "span_id": "0000000000000def",
    });
    assert_eq!(json, expected);
}

#[test]
fn nothing_that_a_client_sends_makes_a_line_or_reaches_a_terminal() {
    let agent = b"x\" 200 \\ \t \xff \xc2\x9b31m \xe2\x80\xae";
    let (text, json) = lines("/%0a%22\u{9b}31m", b"\"}\\ \xc2\x85", agent);
    let inner = |line: &str| {
        line.strip_suffix('\n').map(|line| line.bytes().all(|byte| (0x20..0x7f).contains(&byte)))
    };
    assert_eq!(inner(&text), Some(true), "{text}");
    assert_eq!(text.matches('"').count(), 8, "{text}");
    assert_eq!(json.matches('\n').count(), 1);
    assert!(!json.trim_end().contains(char::is_control), "{json:?}");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["referer"], "\"}\\ \u{fffd}");
    assert_eq!(json["target"], "/%0a%22\u{fffd}31m");
    assert_eq!(json["user_agent"], "x\" 200 \\ \u{fffd} \u{fffd} \u{fffd}31m \u{202e}");
}

#[test]
fn a_line_is_never_longer_than_a_write() {
    let long = "\u{e4}\"".repeat(5000);
    for filler in ["x", "%22", "'"] {
        let target = format!("/{}", filler.repeat(5000));
        let (text, json) = lines(&target, long.as_bytes(), long.as_bytes());
        assert!(text.len() < super::super::WRITE, "{}", text.len());
        assert!(json.len() < super::super::WRITE, "{}", json.len());
        assert!(text.contains("...") && json.contains("..."));
        serde_json::from_str::<serde_json::Value>(&json).unwrap();
    }
}

#[test]
fn secrets_in_queries_are_not_written() {
    for (given, expected) in [
        ("/a?b=1&c=2", "/a?b=1&c=2"),
        ("/a?Access_Token=x&b=1", "/a?Access_Token=***&b=1"),
        ("/a?b=1;X-Amz-Signature=x", "/a?b=1&X-Amz-Signature=***"),
        ("/a?%74oken=x", "/a?%74oken=***"),
        ("/a?api%5Fkey=x&token", "/a?api%5Fkey=***&token"),
        ("https://u:p@a.example/?q=1#token=x", "https://***@a.example/?q=1"),
        ("https://a.example/@x?password=p", "https://a.example/@x?password=***"),
        ("/token=x", "/token=x"),
        ("", ""),
        ("?", "?"),
    ] {
        assert_eq!(redacted(given), expected, "{given}");
    }
}
