//! Tells of its variables, and of a file in a mounted folder.
mod json;

use std::collections::BTreeMap;

fn main() {
    drop(json::Document::read());
    let message = std::env::var("MESSAGE").unwrap_or_else(|_| "no message".into());
    let token = std::env::var("TOKEN").unwrap_or_else(|_| "no token".into());
    let file = std::fs::read_to_string("/mnt/assets/file.txt").unwrap_or_else(|error| error.to_string());
    let others = std::env::vars().filter(|(name, _)| name != "MESSAGE" && name != "TOKEN").count();
    json::answer(&format!("{message}; {token}; {}; {others} others", file.trim()), &BTreeMap::new());
}
