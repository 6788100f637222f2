//! The user's rules for the headers of static answers, made ready.
//!
//! Which rules are for a request is `wharf_app::HeaderRules`'; here are their
//! values as `http` has them, made once, and what they do to a response.

use http::header::{HeaderMap, HeaderName, HeaderValue, SET_COOKIE, VARY};
use wharf_app::{HeaderChange, HeaderRule, HeaderRules, RouteError};

/// Rules for headers; without any, they cost a look.
pub(crate) struct SiteHeaders {
    rules: HeaderRules,
    /// By the ids of the rules' constants.
    constants: Box<[(HeaderName, HeaderValue)]>,
}

impl SiteHeaders {
    pub(crate) fn new(rules: &[HeaderRule]) -> Result<Self, RouteError> {
        let rules =
            HeaderRules::new(rules).map_err(|(pattern, problem)| RouteError::Rule { pattern, problem })?;
        // Both were checked as they were read.
        let ready = |(name, value): (&str, &str)| {
            let name = HeaderName::from_bytes(name.as_bytes()).ok();
            let value = HeaderValue::from_bytes(value.as_bytes()).ok();
            name.zip(value).unwrap_or((HeaderName::from_static("x-none"), HeaderValue::from_static("")))
        };
        let constants = rules.constants().map(ready).collect();
        Ok(Self { rules, constants })
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Does what the rules for `path` (decoded) of `host` say to `headers`.
    pub(crate) fn apply(&self, host: &str, path: &str, headers: &mut HeaderMap) {
        let mut set: Vec<HeaderName> = Vec::new();
        self.rules.apply(host, path, |change| match change {
            HeaderChange::Remove(name) => _ = headers.remove(name),
            HeaderChange::Constant { id, .. } => {
                let (name, value) = &self.constants[id];
                add(headers, &mut set, name.clone(), value.clone());
            }
            HeaderChange::Filled { name, value } => {
                let name = HeaderName::from_bytes(name.as_bytes());
                if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
                    add(headers, &mut set, name, value);
                }
            }
        });
    }
}

/// The first value of a name replaces ours, further ones join it.
fn add(headers: &mut HeaderMap, set: &mut Vec<HeaderName>, name: HeaderName, value: HeaderValue) {
    // A cookie's text may have commas (RFC 6265, 3). And what our answer varies
    // by is so, whatever else there is.
    if name == SET_COOKIE || name == VARY {
        headers.append(name, value);
    } else if !set.contains(&name) {
        headers.insert(&name, value);
        set.push(name);
    } else if let Some(earlier) = headers.get(&name) {
        let joined = [earlier.as_bytes(), b", ", value.as_bytes()].concat();
        if let Ok(joined) = HeaderValue::from_bytes(&joined) {
            headers.insert(name, joined);
        }
    } else {
        // It was set, and removed again.
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use http::header::{CACHE_CONTROL, ETAG};

    use super::*;

    fn applied(text: &str, path: &str) -> HeaderMap {
        let rules = wharf_app::parse_headers(text.as_bytes(), "_headers").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("ours"));
        headers.insert(ETAG, HeaderValue::from_static("\"tag\""));
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        SiteHeaders::new(&rules).unwrap().apply("x.example", path, &mut headers);
        headers
    }

    #[test]
    fn the_first_value_replaces_ours_further_ones_join_it_and_what_is_removed_is_gone() {
        let text = "/*\n Cache-Control: no-store\n X-A: 1\n Set-Cookie: a=1\n Vary: cookie\n\
            /a/:b\n X-A: 2\n X-B: :b\n Set-Cookie: b=2\n/a/c\n ! Cache-Control\n ! X-B\n X-C: c\n";
        let headers = applied(text, "/a/c");
        assert_eq!(headers["x-a"], "1, 2");
        assert_eq!(headers["etag"], "\"tag\"");
        assert!(!headers.contains_key("cache-control") && !headers.contains_key("x-b"));
        assert_eq!(headers["x-c"], "c");
        assert_eq!(headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
        assert_eq!(headers.get_all("vary").iter().collect::<Vec<_>>(), ["accept-encoding", "cookie"]);
        let headers = applied(text, "/b");
        assert_eq!(
            (&headers["cache-control"], &headers["x-a"]),
            (&"no-store".parse().unwrap(), &"1".parse().unwrap())
        );
        assert_eq!(applied(text, "/a/x y")["x-b"], "x%20y");
    }
}
