//! The languages that workers are written in.

use std::fmt;

/// What a worker is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Language {
    /// A component or a command, made by whatever tool.
    Wasm,
    /// WSGI, ASGI or `def worker(request)`, made into a component by componentize-py.
    Python,
    /// JavaScript or TypeScript, made into a component by componentize-js.
    JavaScript,
    /// Rack or `def worker(request)`, made into a command by ruby.wasm.
    Ruby,
    /// A program by Go's own compiler, which speaks CGI.
    Go,
}

impl Language {
    /// The language of a file's name, if workers are written in it.
    ///
    /// Names that never are a worker's have none: declarations of types, tests and
    /// settings of tools, as each ecosystem calls them.
    #[must_use]
    pub(crate) fn of_file(name: &str) -> Option<Self> {
        let (stem, extension) = name.rsplit_once('.')?;
        let language = match extension {
            "wasm" => Self::Wasm,
            "py" => Self::Python,
            "js" | "jsx" | "mjs" | "mts" | "ts" | "tsx" => Self::JavaScript,
            "rb" | "ru" => Self::Ruby,
            "go" => Self::Go,
            _ => return None,
        };
        let is_other = match language {
            Self::Wasm => false,
            Self::Python => matches!(stem, "conftest" | "setup") || stem.starts_with("test_"),
            Self::JavaScript => [".config", ".d", ".spec", ".test"].iter().any(|end| stem.ends_with(end)),
            // Rack's own file, and no other of its kind.
            Self::Ruby => extension == "ru" && stem != "config",
            Self::Go => stem.ends_with("_test"),
        };
        (!is_other).then_some(language)
    }

    /// As `wharf runtimes` calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Python => "python",
            Self::JavaScript => "javascript",
            Self::Ruby => "ruby",
            Self::Go => "go",
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wasm => "WebAssembly",
            Self::Python => "Python",
            Self::JavaScript => "JavaScript",
            Self::Ruby => "Ruby",
            Self::Go => "Go",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_declarations_and_settings_are_no_workers() {
        for name in [
            "other.ru",
            "a.d.ts",
            "vite.config.ts",
            "a.test.js",
            "a.spec.tsx",
            "test_a.py",
            "setup.py",
            "a_test.go",
        ] {
            assert_eq!(Language::of_file(name), None, "{name}");
        }
        for (name, language) in [
            ("a.ts", Language::JavaScript),
            ("config.js", Language::JavaScript),
            ("[id].mjs", Language::JavaScript),
            ("test.py", Language::Python),
            ("config.ru", Language::Ruby),
            ("a.go", Language::Go),
        ] {
            assert_eq!(Language::of_file(name), Some(language), "{name}");
        }
    }
}
