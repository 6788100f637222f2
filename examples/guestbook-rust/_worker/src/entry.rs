//! What an entry is: texts that can be in the book, and their HTML.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An entry of the book.
#[derive(Serialize, Deserialize)]
pub struct Entry {
    pub id: u64,
    #[serde(flatten)]
    pub draft: Draft,
}

/// An entry that has no number yet. Its texts are trimmed, not empty, and not too long.
#[derive(Serialize, Deserialize)]
pub struct Draft {
    name: String,
    text: String,
}

/// Why what was sent is no entry; shown to who sent it.
#[derive(Debug)]
pub enum Invalid {
    NotAnObject,
    Missing(&'static str),
    TooLong(&'static str, usize),
}

impl Draft {
    /// From a body in `application/x-www-form-urlencoded`.
    pub fn from_form(body: &[u8]) -> Result<Self, Invalid> {
        let field = |name| form_urlencoded::parse(body).find(|(key, _)| key == name).map(|(_, value)| value);
        Self::new(field("name").as_deref(), field("text").as_deref())
    }

    /// From a body in JSON.
    pub fn from_json(body: &[u8]) -> Result<Self, Invalid> {
        let value: serde_json::Value = serde_json::from_slice(body).map_err(|_| Invalid::NotAnObject)?;
        let object = value.as_object().ok_or(Invalid::NotAnObject)?;
        let field = |name| object.get(name).and_then(|value| value.as_str());
        Self::new(field("name"), field("text"))
    }

    fn new(name: Option<&str>, text: Option<&str>) -> Result<Self, Invalid> {
        Ok(Self { name: checked("name", name, 100)?, text: checked("text", text, 1000)? })
    }
}

fn checked(field: &'static str, value: Option<&str>, most: usize) -> Result<String, Invalid> {
    let value = value.map(str::trim).filter(|value| !value.is_empty()).ok_or(Invalid::Missing(field))?;
    if value.chars().count() > most {
        return Err(Invalid::TooLong(field, most));
    }
    Ok(value.to_owned())
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnObject => f.write_str("expected a JSON object with the texts name and text"),
            Self::Missing(field) => write!(f, "{field}: expected a text"),
            Self::TooLong(field, most) => write!(f, "{field}: expected at most {most} characters"),
        }
    }
}

/// An entry is shown as an item of a list in HTML.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<li><b>{}</b> {}</li>", Escaped(&self.draft.name), Escaped(&self.draft.text))
    }
}

/// Text within HTML.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            other => write!(f, "{other}"),
        })
    }
}
