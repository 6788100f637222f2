//! A store by hand: `put` adds the body as a key, `list` tells the keys, and
//! `clear` answers with an empty store.
mod json;

fn main() {
    let document = json::Document::read();
    let mut kv = document.map("kv");
    match document.map("params").get("do").map(String::as_str) {
        Some("put") => _ = kv.insert(document.get("body").into(), "1".into()),
        Some("clear") => kv.clear(),
        _ => {}
    }
    let keys: Vec<&str> = kv.keys().map(String::as_str).collect();
    let data = keys.join(" ");
    json::answer(&data, &kv);
}
