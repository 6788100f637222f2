//! As much JSON as the protocol needs, with std alone.
#![allow(dead_code, reason = "each guest uses a part of it")]

use std::collections::BTreeMap;
use std::io::{Read, Write};

/// What a worker got: texts, and maps of them.
pub struct Document {
    /// As it came.
    pub text: String,
    texts: BTreeMap<String, String>,
    maps: BTreeMap<String, BTreeMap<String, String>>,
}

impl Document {
    /// Reads the document from stdin.
    pub fn read() -> Self {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).expect("stdin is UTF-8");
        let mut reader = Reader { rest: text.trim() };
        let (mut texts, mut maps) = (BTreeMap::new(), BTreeMap::new());
        reader.object(|reader, key| match reader.rest.chars().next() {
            Some('{') => {
                let mut map = BTreeMap::new();
                reader.object(|reader, key| _ = map.insert(key, reader.text()));
                maps.insert(key, map);
            }
            _ => _ = texts.insert(key, reader.text()),
        });
        Self { text: text.clone(), texts, maps }
    }

    pub fn get(&self, key: &str) -> &str {
        self.texts.get(key).map_or("", String::as_str)
    }

    pub fn map(&self, key: &str) -> BTreeMap<String, String> {
        self.maps.get(key).cloned().unwrap_or_default()
    }
}

/// Writes the answer to stdout: status 200, without headers of its own.
pub fn answer(data: &str, kv: &BTreeMap<String, String>) {
    write(&format!("{{\"data\":{},\"headers\":{{}},\"status\":200,\"kv\":{}}}", quoted(data), object(kv)));
}

/// Writes a text to stdout.
pub fn write(text: &str) {
    std::io::stdout().write_all(text.as_bytes()).expect("stdout can be written");
}

pub fn quoted(text: &str) -> String {
    let escaped = text.chars().map(|c| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c < ' ' => format!("\\u{:04x}", c as u32),
        c => c.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

fn object(map: &BTreeMap<String, String>) -> String {
    let pairs = map.iter().map(|(key, value)| format!("{}:{}", quoted(key), quoted(value)));
    format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn take(&mut self, expected: char) {
        self.rest = self.rest.strip_prefix(expected).unwrap_or_else(|| panic!("expected {expected}: {}", self.rest));
        self.rest = self.rest.trim_start();
    }

    fn object(&mut self, mut value: impl FnMut(&mut Self, String)) {
        self.take('{');
        while !self.rest.starts_with('}') {
            let key = self.text();
            self.take(':');
            value(self, key);
            if self.rest.starts_with(',') {
                self.take(',');
            }
        }
        self.take('}');
    }

    fn text(&mut self) -> String {
        let mut text = String::new();
        let mut chars = self.rest.strip_prefix('"').expect("a text").chars();
        loop {
            match chars.next().expect("the end of a text") {
                '"' => break,
                '\\' => match chars.next().expect("an escape") {
                    'n' => text.push('\n'),
                    'r' => text.push('\r'),
                    't' => text.push('\t'),
                    'b' => text.push('\u{8}'),
                    'f' => text.push('\u{c}'),
                    'u' => text.push(escaped(&mut chars)),
                    other => text.push(other),
                },
                other => text.push(other),
            }
        }
        self.rest = chars.as_str().trim_start();
        text
    }
}

/// `\uXXXX`, whose pair for a character beyond the first 65536 follows.
fn escaped(chars: &mut std::str::Chars<'_>) -> char {
    let unit = |chars: &mut std::str::Chars<'_>| {
        let (digits, rest) = chars.as_str().split_at(4);
        *chars = rest.chars();
        u16::from_str_radix(digits, 16).expect("four digits")
    };
    let mut units = vec![unit(chars)];
    if (0xd800..0xdc00).contains(&units[0]) {
        *chars = chars.as_str().strip_prefix("\\u").expect("the other half").chars();
        units.push(unit(chars));
    }
    char::decode_utf16(units).next().expect("a character").expect("a character")
}
