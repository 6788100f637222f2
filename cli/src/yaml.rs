//! YAML, as far as Kubernetes manifests need it: block style, comments, and the
//! same bytes each time. Written by hand because no serializer that is kept up
//! writes comments. It reads nothing.

use std::fmt::Write as _;

/// A value of a document.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    Text(String),
    Number(u64),
    Flag(bool),
    List(Vec<Item>),
    Map(Map),
}

/// An element of a list.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Item {
    comment: Vec<String>,
    value: Node,
}

/// Keys and values, in the order in which they were put in.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Map(Vec<(String, Item)>);

impl Map {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The same map with one more key.
    pub(crate) fn with(self, key: impl Into<String>, value: impl Into<Node>) -> Self {
        self.with_item(key, Item::from(value.into()))
    }

    /// The same, with comments in the lines above it.
    pub(crate) fn with_item(mut self, key: impl Into<String>, item: Item) -> Self {
        self.0.push((key.into(), item));
        self
    }

    /// The same, if there is a value.
    pub(crate) fn with_some(self, key: &str, value: Option<impl Into<Node>>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }
}

impl Item {
    /// The same with a line of comment above it.
    pub(crate) fn comment(mut self, line: impl Into<String>) -> Self {
        self.comment.push(line.into());
        self
    }
}

impl<T: Into<Node>> From<T> for Item {
    fn from(value: T) -> Self {
        Self { comment: Vec::new(), value: value.into() }
    }
}

impl From<&str> for Node {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Node {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Node {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Node {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<Map> for Node {
    fn from(map: Map) -> Self {
        Self::Map(map)
    }
}

impl<T: Into<Item>> FromIterator<T> for Node {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }
}

/// A document, without its `---`.
pub(crate) fn document(map: &Map) -> String {
    let mut text = String::new();
    write_map(&mut text, map, 0, false);
    text
}

/// Writes the lines of a map; the first follows what is there (`- `) if `inline`.
fn write_map(text: &mut String, map: &Map, indent: usize, inline: bool) {
    for (number, (key, item)) in map.0.iter().enumerate() {
        if number > 0 || !inline {
            write_comment(text, &item.comment, indent);
            push_spaces(text, indent);
        }
        text.push_str(&scalar(key));
        text.push(':');
        match &item.value {
            Node::Map(inner) if !inner.0.is_empty() => {
                text.push('\n');
                write_map(text, inner, indent + 2, false);
            }
            Node::List(items) if !items.is_empty() => {
                text.push('\n');
                write_list(text, items, indent + 2);
            }
            value => {
                text.push(' ');
                text.push_str(&leaf(value));
                text.push('\n');
            }
        }
    }
}

fn write_list(text: &mut String, items: &[Item], indent: usize) {
    for item in items {
        write_comment(text, &item.comment, indent);
        push_spaces(text, indent);
        text.push_str("- ");
        match &item.value {
            Node::Map(map) if !map.0.is_empty() => write_map(text, map, indent + 2, true),
            // A list in a list: not in any manifest of ours, and valid all the same.
            Node::List(inner) if !inner.is_empty() => {
                text.pop();
                text.push('\n');
                write_list(text, inner, indent + 2);
            }
            value => {
                text.push_str(&leaf(value));
                text.push('\n');
            }
        }
    }
}

/// Comment lines. Whatever would end a line is left out, so that no text from
/// elsewhere gets out of its comment.
pub(crate) fn comment(lines: &[String]) -> String {
    let mut text = String::new();
    write_comment(&mut text, lines, 0);
    text
}

fn write_comment(text: &mut String, lines: &[String], indent: usize) {
    for line in lines {
        push_spaces(text, indent);
        text.push_str("# ");
        text.extend(line.chars().map(|c| if must_be_escaped(c) { char::REPLACEMENT_CHARACTER } else { c }));
        text.push('\n');
    }
}

fn push_spaces(text: &mut String, count: usize) {
    text.extend(std::iter::repeat_n(' ', count));
}

fn leaf(node: &Node) -> String {
    match node {
        Node::Text(text) => scalar(text),
        Node::Number(number) => number.to_string(),
        Node::Flag(flag) => flag.to_string(),
        // Those that are not empty have lines of their own.
        Node::List(_) => "[]".to_owned(),
        Node::Map(_) => "{}".to_owned(),
    }
}

/// A text, plain where every version of YAML reads it as that text, else in
/// double quotes.
fn scalar(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { quoted(text) }
}

/// Fewer than YAML allows: what begins with a letter or a slash, and has nothing
/// in it that could end it. Digits in front could be a number, a date or, in
/// YAML 1.1, a time.
fn is_plain(text: &str) -> bool {
    // What YAML 1.1 takes for a flag or nothing (yaml.org/type/bool.html).
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:@+".contains(&byte);
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.bytes().all(inside)
        // A colon at the end is a key's.
        && !text.ends_with(':')
        && !WORDS.iter().any(|word| word.eq_ignore_ascii_case(text))
}

/// YAML 1.2.2, 7.3.1.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            // All of them are in the first plane.
            c if must_be_escaped(c) => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// What is not printable (YAML 1.2.2, 5.1), ends a line in some version of YAML,
/// or changes the direction of the text around it on a terminal.
fn must_be_escaped(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(c, '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_lists_and_comments_are_lines_of_their_own() {
        let map = Map::new()
            .with("kind", "Pod")
            .with_item("metadata", Item::from(Map::new().with("name", "x")).comment("whose"))
            .with("none", Map::new())
            .with("no", Node::List(Vec::new()))
            .with(
                "list",
                Node::from_iter([
                    Item::from(Map::new().with("a", 1).with("b", true)),
                    Item::from("text").comment("two").comment("lines"),
                    Item::from(Node::from_iter(["inner"])),
                ]),
            );
        assert_eq!(
            document(&map),
            "kind: Pod\n# whose\nmetadata:\n  name: x\nnone: {}\n\"no\": []\nlist:\n  - a: 1\n    b: true\n  \
             # two\n  # lines\n  - text\n  -\n    - inner\n"
        );
    }

    #[test]
    fn a_text_that_could_be_read_as_something_else_is_quoted() {
        for plain in ["abc", "/data/kv", "io.containerd.wasm.v1", "127a", "example.test:5000/a@sha256:00"] {
            assert_eq!(scalar(plain) == plain, !plain.starts_with('1'), "{plain}");
        }
        for text in ["", "1", "0x1", "1e3", "yes", "No", "NULL", "~", "-", "a: b", "a #b", "a:", "12:30", "*"]
        {
            assert_eq!(scalar(text), format!("\"{text}\""));
        }
        assert_eq!(scalar("a\"b\\c\n\td"), r#""a\"b\\c\n\td""#);
        assert_eq!(scalar("\u{1b}[2J\u{85}\u{2028}\u{202e}\u{7f}"), r#""\u001b[2J\u0085\u2028\u202e\u007f""#);
        assert_eq!(scalar("grüße"), "\"grüße\"");
    }

    #[test]
    fn nothing_gets_out_of_a_comment() {
        assert_eq!(
            comment(&["a\nkind: Secret\r\u{2028}b".into()]),
            "# a\u{fffd}kind: Secret\u{fffd}\u{fffd}b\n"
        );
    }
}
