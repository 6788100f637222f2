use std::collections::HashMap;

use http::Request;

use super::*;

struct Variables(HashMap<String, String>);

impl Variables {
    fn of(script: &Script, request: http::request::Builder, params: &[(&str, &str)]) -> Self {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let params: Vec<_> = params.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let mut set = HashMap::new();
        script.variables(&parts, None, &params, &mut |name, value| {
            let earlier = set.insert(name.to_owned(), value.to_owned());
            assert_eq!(earlier, None, "{name} is set twice");
        });
        Self(set)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn http(&self) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.0.keys().map(String::as_str).filter(|name| name.starts_with("HTTP_")).collect();
        names.sort_unstable();
        names
    }
}

fn script(pattern: &str) -> Script {
    Script::new("api/x", pattern, &[])
}

#[test]
fn a_request_becomes_the_variables_of_the_rfc() {
    let caller = Caller { address: Some([192, 0, 2, 7].into()), secure: true };
    let request = Request::post("/api/x/%C3%A4%20b?a=%20&b")
        .header("host", "app.example:8443")
        .header("content-type", "text/plain")
        .extension(caller);
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let mut set = HashMap::new();
    script("/api/x/[...rest]").variables(&parts, Some(5), &[], &mut |name, value| {
        set.insert(name.to_owned(), value.to_owned());
    });
    for (name, value) in [
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("REQUEST_METHOD", "POST"),
        ("SCRIPT_NAME", "/api/x"),
        ("PATH_INFO", "/ä b"),
        ("QUERY_STRING", "a=%20&b"),
        ("REQUEST_URI", "/api/x/%C3%A4%20b?a=%20&b"),
        ("CONTENT_LENGTH", "5"),
        ("CONTENT_TYPE", "text/plain"),
        ("SERVER_NAME", "app.example"),
        ("SERVER_PORT", "8443"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REMOTE_ADDR", "192.0.2.7"),
        ("REMOTE_HOST", "192.0.2.7"),
        ("HTTP_HOST", "app.example:8443"),
        ("HTTPS", "on"),
        ("REQUEST_SCHEME", "https"),
    ] {
        assert_eq!(set.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(set["SERVER_SOFTWARE"].starts_with("wharf/"));
}

#[test]
fn the_path_is_split_where_the_route_ends() {
    for (pattern, path, script_name, path_info) in [
        ("/", "/", "", "/"),
        ("/[...all]", "/a/b", "", "/a/b"),
        ("/api/x", "/api/x", "/api/x", ""),
        ("/api/x", "/api/x/", "/api/x", "/"),
        ("/api/[id]", "/api/7", "/api/7", ""),
        ("/f/[...rest]", "/f", "/f", ""),
        ("/f/[...rest]", "/f/", "/f", "/"),
        ("/f/[...rest]", "/f//a", "/f", "//a"),
    ] {
        let variables = Variables::of(&script(pattern), Request::get(path), &[]);
        let found = (variables.get("SCRIPT_NAME"), variables.get("PATH_INFO"));
        assert_eq!(found, (Some(script_name), Some(path_info)), "{pattern} {path}");
    }
}

#[test]
fn no_header_becomes_another_variable_than_its_own() {
    let request = Request::get("/")
        .header("proxy", "http://evil.example")
        .header("x_forwarded_for", "1")
        .header("x.a", "1")
        .header("content-length", "7")
        .header("connection", "close")
        .header("transfer-encoding", "chunked")
        .header("wharf-worker", "other")
        .header("wharf-params", "id=1")
        .header("user-agent", "curl")
        .header("authorization", "Bearer t");
    let variables = Variables::of(&script("/"), request, &[]);
    assert_eq!(variables.http(), ["HTTP_AUTHORIZATION", "HTTP_USER_AGENT"]);
    assert_eq!(variables.get("CONTENT_LENGTH"), None, "there is no body");
    assert_eq!(variables.get("WHARF_WORKER"), Some("api/x"));
    assert_eq!(variables.get("WHARF_PARAMS"), None);
}

#[test]
fn a_header_with_many_values_is_one_variable() {
    let request = Request::get("/")
        .header("accept", "a")
        .header("accept", "b")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("authorization", "one")
        .header("authorization", "two")
        .header("x-bytes", HeaderValue::from_bytes(b"\xff").unwrap());
    let variables = Variables::of(&script("/"), request, &[]);
    assert_eq!(variables.get("HTTP_ACCEPT"), Some("a, b"));
    assert_eq!(variables.get("HTTP_COOKIE"), Some("a=1; b=2"));
    assert_eq!(variables.get("HTTP_AUTHORIZATION"), Some("one"));
    assert_eq!(variables.get("HTTP_X_BYTES"), Some("\u{fffd}"));
}

#[test]
fn settings_replace_headers_but_not_what_cgi_defines() {
    let env = [("PATH_INFO", "no"), ("HTTP_PROXY", "http://proxy.example"), ("HTTP_X_A", "set"), ("A", "1")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let request = Request::get("/").header("proxy", "http://evil.example").header("x-a", "sent");
    let variables = Variables::of(&Script::new("x", "/", &env), request, &[]);
    assert_eq!(variables.get("PATH_INFO"), Some("/"));
    assert_eq!(variables.get("HTTP_PROXY"), Some("http://proxy.example"));
    assert_eq!(variables.get("HTTP_X_A"), Some("set"));
    assert_eq!(variables.get("A"), Some("1"));
}

#[test]
fn parameters_of_the_route_have_variables() {
    let params = [("user-id", "ä b"), ("user_id", "2"), ("rest", "x/y")];
    let variables = Variables::of(&script("/[user-id]/[user_id]/[...rest]"), Request::get("/"), &params);
    assert_eq!(variables.get("WHARF_PARAM_USER_ID"), Some("ä b"), "the first of two alike");
    assert_eq!(variables.get("WHARF_PARAM_REST"), Some("x/y"));
    assert_eq!(variables.get("WHARF_PARAMS"), Some("user%2Did=%C3%A4%20b&user%5Fid=2&rest=x%2Fy"));
}

#[test]
fn the_server_is_named_by_the_request_or_localhost() {
    for (target, host, name, port, http_host) in [
        ("/", Some("[::1]:9"), "[::1]", "9", Some("[::1]:9")),
        ("http://b.example/x", Some("a.example"), "b.example", "80", Some("b.example")),
        ("/", Some("a b"), "localhost", "80", Some("a b")),
        ("/", Some(":80"), "localhost", "80", Some(":80")),
        ("/", None, "localhost", "80", None),
    ] {
        let request = match host {
            Some(host) => Request::get(target).header("host", host),
            None => Request::get(target),
        };
        let variables = Variables::of(&script("/"), request, &[]);
        let found = (variables.get("SERVER_NAME"), variables.get("SERVER_PORT"), variables.get("HTTP_HOST"));
        assert_eq!(found, (Some(name), Some(port), http_host), "{target} {host:?}");
        assert_eq!(variables.get("REMOTE_ADDR"), Some(""));
        assert_eq!(variables.get("HTTPS"), None);
    }
}
