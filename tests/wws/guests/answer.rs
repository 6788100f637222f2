//! Answers as its parameter says: a status, headers, bytes, much, or nothing that is JSON.
mod json;

fn main() {
    let document = json::Document::read();
    let answer = match document.map("params").get("what").map(String::as_str) {
        Some("status") => r#"{"data":"made","headers":{"x-generated-by":"a worker"},"status":201,"kv":{}}"#.into(),
        Some("html") => r#"{"data":"<p>a page</p>","headers":{},"status":200,"kv":{}}"#.into(),
        // 00 01 FE FF.
        Some("bytes") => {
            r#"{"data":"AAH+/w==","headers":{"content-type":"application/octet-stream"},"status":200,"kv":{},"base64":true}"#.into()
        }
        Some("cookies") => {
            r#"{"data":"two cookies","headers":{"set-cookie":["a=1","b=2; Path=/"]},"status":200,"kv":{}}"#.into()
        }
        Some("much") => format!(
            "{{\"data\":\"{}\",\"headers\":{{\"content-type\":\"text/plain\"}},\"status\":200,\"kv\":{{}}}}",
            "0123456789".repeat(100_000)
        ),
        // What the Rust kit prints when a handler returns an error.
        Some("error") => {
            r#"{"data":"There was an error running the handler","headers":{},"status":500,"kv":{},"base64":false}"#.into()
        }
        _ => String::from("not JSON"),
    };
    json::write(&answer);
}
