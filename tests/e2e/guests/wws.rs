//! A worker of the wws protocol, with std alone: it answers with what it got.
use std::io::{Read, Write};

fn main() {
    let mut document = String::new();
    std::io::stdin().read_to_string(&mut document).unwrap();
    let escaped = document.replace('\\', "\\\\").replace('"', "\\\"");
    let answer = format!("{{\"data\":\"{escaped}\",\"headers\":{{\"content_type\":\"application/json\"}},\"status\":200,\"kv\":{{}}}}");
    std::io::stdout().write_all(answer.as_bytes()).unwrap();
}
