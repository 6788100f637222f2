//! Counts its requests in the key that the variable KEY names, for NAME.
mod json;

fn main() {
    let document = json::Document::read();
    let key = std::env::var("KEY").unwrap_or_else(|_| "counter".into());
    let name = std::env::var("NAME").unwrap_or_else(|_| "Counter:".into());
    let mut kv = document.map("kv");
    let count = kv.get(&key).and_then(|count| count.parse::<u32>().ok()).unwrap_or(0) + 1;
    kv.insert(key, count.to_string());
    json::answer(&format!("{name} {count}"), &kv);
}
