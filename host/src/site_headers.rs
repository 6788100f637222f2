//! The user's rules for the headers of static answers, made ready.
//!
//! Which rules are for a request is `wharf_app::HeaderRules`'; here are their
//! values as `http` has them, made once, and what they do to a response.
//!
//! A rule's `Content-Type` is the type of the file that is sent, whole or in
//! parts, and not of the host's own messages. And what it tells caches is not
//! for errors: what is missing now may be there tomorrow.

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, SET_COOKIE, VARY};
use http::{Response, StatusCode};
use wharf_app::{HeaderChange, HeaderRule, HeaderRules, RouteError};

/// Rules for headers; without any, they cost a look.
pub(crate) struct SiteHeaders {
    rules: HeaderRules,
    /// By the ids of the rules' constants.
    constants: Box<[(HeaderName, HeaderValue)]>,
    /// Whether any rule is about the type of a file.
    has_types: bool,
}

impl SiteHeaders {
    pub(crate) fn new(rules: &[HeaderRule]) -> Result<Self, RouteError> {
        let mut names = rules.iter().flat_map(|rule| rule.set.keys().chain(&rule.remove));
        let has_types = names.any(|name| name.eq_ignore_ascii_case(CONTENT_TYPE.as_str()));
        let rules =
            HeaderRules::new(rules).map_err(|(pattern, problem)| RouteError::Rule { pattern, problem })?;
        // Both were checked as they were read.
        let ready = |(name, value): (&str, &str)| {
            let name = HeaderName::from_bytes(name.as_bytes()).ok();
            let value = HeaderValue::from_bytes(value.as_bytes()).ok();
            name.zip(value).unwrap_or((HeaderName::from_static("x-none"), HeaderValue::from_static("")))
        };
        let constants = rules.constants().map(ready).collect();
        Ok(Self { rules, constants, has_types })
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What the rules for `path` (decoded) of `host` make of the type of a file
    /// that answers with `status`.
    pub(crate) fn media_type(
        &self,
        host: &str,
        path: &str,
        status: StatusCode,
        own: Option<HeaderValue>,
    ) -> Option<HeaderValue> {
        // A page for what is missing is none of the files that the rule means.
        if !self.has_types || is_error(status) {
            return own;
        }
        let mut headers: HeaderMap = own.map(|own| (CONTENT_TYPE, own)).into_iter().collect();
        self.change(host, path, &mut headers, |name| name == CONTENT_TYPE.as_str());
        headers.remove(CONTENT_TYPE)
    }

    /// Does what the rules for `path` (decoded) of `host` say to the headers of
    /// `response`, but for the type.
    pub(crate) fn apply<B>(&self, host: &str, path: &str, response: &mut Response<B>) {
        let is_error = is_error(response.status());
        self.change(host, path, response.headers_mut(), |name| {
            name != CONTENT_TYPE.as_str() && !(is_error && is_for_caches(name))
        });
    }

    /// Changes those of `headers` whose names are `meant`.
    fn change(&self, host: &str, path: &str, headers: &mut HeaderMap, meant: impl Fn(&str) -> bool) {
        let mut set: Vec<HeaderName> = Vec::new();
        self.rules.apply(host, path, |change| match change {
            HeaderChange::Remove(name) if meant(name) => _ = headers.remove(name),
            HeaderChange::Constant { name, id } if meant(name) => {
                let (name, value) = &self.constants[id];
                add(headers, &mut set, name.clone(), value.clone());
            }
            HeaderChange::Filled { name, value } if meant(name) => {
                let name = HeaderName::from_bytes(name.as_bytes());
                if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
                    add(headers, &mut set, name, value);
                }
            }
            _ => {}
        });
    }
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// Whether the header tells caches how long to keep an answer: `Cache-Control`,
/// those for one kind of cache (RFC 9213: `CDN-Cache-Control` and its like), and
/// older ones.
fn is_for_caches(name: &str) -> bool {
    name.ends_with("cache-control") || ["expires", "surrogate-control", "x-accel-expires"].contains(&name)
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

    fn site_headers(text: &str) -> SiteHeaders {
        SiteHeaders::new(&wharf_app::parse_headers(text.as_bytes(), "_headers").unwrap()).unwrap()
    }

    fn applied(text: &str, path: &str) -> HeaderMap {
        answered(text, path, StatusCode::OK)
    }

    /// Headers of an answer with this status.
    fn answered(text: &str, path: &str, status: StatusCode) -> HeaderMap {
        let mut response = Response::new(());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("ours"));
        headers.insert(ETAG, HeaderValue::from_static("\"tag\""));
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        site_headers(text).apply("x.example", path, &mut response);
        response.into_parts().0.headers
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

    #[test]
    fn what_a_rule_tells_caches_is_not_for_errors() {
        let text = "/*\n Cache-Control: max-age=31536000\n Expires: :splat\n CDN-Cache-Control: max-age=1\n\
            \x20Netlify-CDN-Cache-Control: max-age=1\n Surrogate-Control: max-age=1\n X-Accel-Expires: 1\n\
            \x20X-A: 1\n/b\n ! Cache-Control\n ! Expires\n";
        let told = [
            "expires",
            "cdn-cache-control",
            "netlify-cdn-cache-control",
            "surrogate-control",
            "x-accel-expires",
        ];
        for status in [StatusCode::OK, StatusCode::NOT_MODIFIED, StatusCode::MOVED_PERMANENTLY] {
            let headers = answered(text, "/a", status);
            assert!(told.iter().all(|name| headers.contains_key(*name)), "{headers:?}");
            assert_eq!(
                (&headers["cache-control"], &headers["x-a"]),
                (&"max-age=31536000".parse().unwrap(), &"1".parse().unwrap())
            );
        }
        for (path, status) in [("/a", 404), ("/b", 404), ("/a", 405), ("/a", 412), ("/a", 416), ("/a", 400)] {
            let headers = answered(text, path, StatusCode::from_u16(status).unwrap());
            assert!(!told.iter().any(|name| headers.contains_key(*name)), "{headers:?}");
            assert_eq!(
                (&headers["cache-control"], &headers["x-a"]),
                (&"ours".parse().unwrap(), &"1".parse().unwrap())
            );
        }
    }

    #[test]
    fn a_type_is_that_of_a_file_and_of_nothing_else() {
        let site = site_headers("/*\n Content-Type: text/x-:splat\n X-A: 1\n/b\n ! Content-Type\n");
        let own = Some(HeaderValue::from_static("text/plain"));
        let of = |path: &str, status| site.media_type("h", path, status, own.clone());
        assert_eq!(of("/a", StatusCode::OK), Some(HeaderValue::from_static("text/x-a")));
        assert_eq!(of("/a", StatusCode::PARTIAL_CONTENT), Some(HeaderValue::from_static("text/x-a")));
        assert_eq!(of("/b", StatusCode::OK), None);
        assert_eq!(of("/a", StatusCode::NOT_FOUND), own);
        assert_eq!(site_headers("/*\n X-A: 1\n").media_type("h", "/a", StatusCode::OK, own.clone()), own);
        let mut message = Response::new(());
        message.headers_mut().extend(own.clone().map(|own| (CONTENT_TYPE, own)));
        for path in ["/a", "/b"] {
            site.apply("h", path, &mut message);
            assert_eq!(
                (message.headers().get(CONTENT_TYPE), &message.headers()["x-a"]),
                (own.as_ref(), &"1".parse().unwrap())
            );
        }
    }
}
