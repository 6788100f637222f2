use super::*;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
    }
    headers
}

fn tcp(address: &str) -> Peer {
    Peer::Tcp(SocketAddr::new(address.parse().unwrap(), 1234))
}

fn client(trusted: &str, peer: Peer, pairs: &[(&str, &str)]) -> Client {
    let trusted: TrustedProxies = trusted.parse().unwrap();
    trusted.client(ForwardedBy::XForwarded, peer, Secure::Plain, &headers(pairs))
}

#[test]
fn who_is_not_trusted_is_the_client_whatever_it_says() {
    for trusted in ["", "10.0.0.0/8", "unix"] {
        let pairs = [("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https")];
        let client = client(trusted, tcp("192.0.2.7"), &pairs);
        assert_eq!((client.to_string().as_str(), client.scheme()), ("192.0.2.7", "http"), "{trusted:?}");
    }
}

#[test]
fn behind_trusted_proxies_the_client_is_the_nearest_hop_that_is_none_of_them() {
    let pairs = [("x-forwarded-for", "6.6.6.6, 203.0.113.9"), ("x-forwarded-for", "10.1.1.1")];
    assert_eq!(client("10.0.0.0/8", tcp("10.0.0.1"), &pairs).to_string(), "203.0.113.9");
    // As an IPv6 socket shows an IPv4 peer.
    assert_eq!(client("10.0.0.0/8", tcp("::ffff:10.0.0.1"), &pairs).to_string(), "203.0.113.9");
    let all_trusted = [("x-forwarded-for", "10.2.2.2, 10.1.1.1")];
    assert_eq!(client("private", tcp("10.0.0.1"), &all_trusted).to_string(), "10.2.2.2");
    assert_eq!(client("private", tcp("10.0.0.1"), &[]).to_string(), "10.0.0.1");
}

#[test]
fn nothing_before_a_hop_that_cannot_be_read_is_believed() {
    for hops in ["6.6.6.6, unknown, 10.1.1.1", "6.6.6.6, , 10.1.1.1", "6.6.6.6,<script>,10.1.1.1"] {
        let client = client("10.0.0.0/8", tcp("10.0.0.1"), &[("x-forwarded-for", hops)]);
        assert_eq!(client.to_string(), "10.1.1.1", "{hops}");
    }
}

/// What a request with these lines of `name`, as bytes, says of its client
/// through the trusted proxy 10.0.0.1.
fn told(by: ForwardedBy, name: &'static str, lines: &[&[u8]]) -> Client {
    let values = lines.iter().map(|line| HeaderValue::from_bytes(line).unwrap());
    let mut headers = HeaderMap::new();
    values.for_each(|value| _ = headers.append(name, value));
    let trusted: TrustedProxies = "10.0.0.0/8".parse().unwrap();
    trusted.client(by, tcp("10.0.0.1"), Secure::Plain, &headers)
}

#[test]
fn what_a_client_wrote_does_not_hide_the_hop_that_a_proxy_added() {
    for lines in [
        // Its own line, and the same one, as nginx appends.
        &[&b"\xff"[..], b"203.0.113.9"][..],
        &[b"\xff, 203.0.113.9"],
        &[b"\", 203.0.113.9"],
        &[b"6.6.6.6, \"a, 203.0.113.9, 10.1.1.1"],
        &[b"\xff, 203.0.113.9", b"10.1.1.1:80, 10.1.1.2"],
    ] {
        let client = told(ForwardedBy::XForwarded, "x-forwarded-for", lines);
        assert_eq!(client.to_string(), "203.0.113.9", "{lines:?}");
    }
    let client = told(ForwardedBy::XForwarded, "x-forwarded-for", &[b"6.6.6.6, \xff, 10.1.1.1"]);
    assert_eq!(client.to_string(), "10.1.1.1");
    let client = told(ForwardedBy::XForwarded, "x-forwarded-proto", &[b"\xff, https"]);
    assert_eq!(client.scheme(), "https");
    let client = told(ForwardedBy::XForwarded, "x-forwarded-host", &[b"\xff, a.example"]);
    assert_eq!(client.host, Some(HeaderValue::from_static("a.example")));
}

#[test]
fn no_quote_of_a_client_takes_in_the_element_that_a_proxy_added() {
    for client in [
        &br#"for=6.6.6.6;host=evil;x="\"""#[..],
        br#"for=6.6.6.6;host=evil;x="\\""#,
        br#"for=6.6.6.6;host=evil;x="\\\"""#,
        br#"for=6.6.6.6;host=evil;x=""#,
        br#"for=6.6.6.6;host=evil;x="\"#,
        br#"for=6.6.6.6;host=evil;x=\""#,
        b"for=6.6.6.6;host=evil;x=\"\xff",
        b"\xff",
    ] {
        for proxy in [
            &b"for=203.0.113.9"[..],
            br#"for="203.0.113.9:47";proto=http"#,
            br#"by="[::1]";for=203.0.113.9;x="a\"b,c\\""#,
            b"for=203.0.113.9;x=\"\xff\"",
        ] {
            let shown = String::from_utf8_lossy(client);
            for lines in [&[client, proxy][..], &[[client, b", ", proxy].concat().as_slice()]] {
                let told = told(ForwardedBy::Forwarded, "forwarded", lines);
                assert_eq!((told.to_string().as_str(), told.host), ("203.0.113.9", None), "{shown}");
            }
        }
    }
}

#[test]
fn an_element_that_cannot_be_read_tells_nothing_and_neither_does_what_is_before_it() {
    for unreadable in [
        "for=\"10.1.1.1",
        "for=10.1.1.1\"",
        "for=\"10.1.1.1\"x",
        "for=\"10.1.1.1\\\"",
        "for=10.1.1.1;for=6.6.6.6",
        "for=10.1.1.1;\"",
        "for",
        "=10.1.1.1",
        "f or=10.1.1.1",
        "for=unknown",
        "for=_hidden",
        "proto=https",
        "",
    ] {
        let line = format!("for=6.6.6.6, {unreadable}, for=10.2.2.2;proto=https;;");
        let client = told(ForwardedBy::Forwarded, "forwarded", &[line.as_bytes()]);
        assert_eq!((client.to_string().as_str(), client.scheme()), ("10.2.2.2", "https"), "{line}");
    }
    let client = told(ForwardedBy::Forwarded, "forwarded", &[b"for=6.6.6.6;proto=https;\""]);
    assert_eq!((client.to_string().as_str(), client.scheme()), ("10.0.0.1", "http"));
}

#[test]
fn a_unix_peer_is_trusted_only_by_choice() {
    let pairs = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", "https")];
    assert_eq!(client("private", Peer::Unix, &pairs).address(), None);
    let trusted = client("unix", Peer::Unix, &pairs);
    assert_eq!((trusted.to_string().as_str(), trusted.scheme()), ("203.0.113.9", "https"));
}

#[test]
fn forwarded_is_read_as_rfc_7239_has_it_and_only_if_it_was_chosen() {
    let trusted: TrustedProxies = "10.0.0.1".parse().unwrap();
    let pairs = [
        ("forwarded", r#"for=6.6.6.6, For="[2001:db8::17]:4711";proto=https;host="a.example:8443""#),
        ("x-forwarded-for", "5.5.5.5"),
    ];
    let ask = |by| trusted.client(by, tcp("10.0.0.1"), Secure::Plain, &headers(&pairs));
    let chosen = ask(ForwardedBy::Forwarded);
    assert_eq!((chosen.to_string().as_str(), chosen.scheme()), ("2001:db8::17", "https"));
    assert_eq!(chosen.host, Some(HeaderValue::from_static("a.example:8443")));
    assert_eq!(ask(ForwardedBy::XForwarded).to_string(), "5.5.5.5");
    let quoted = headers(&[("forwarded", r#"for="_a,b;c=1.2.3.4""#)]);
    let client = trusted.client(ForwardedBy::Forwarded, tcp("10.0.0.1"), Secure::Plain, &quoted);
    assert_eq!(client.to_string(), "10.0.0.1");
}

#[test]
fn a_guest_sees_nothing_that_was_not_believed() {
    let claims = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-prefix", "/admin"),
        ("x-real-ip", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
        ("accept", "*/*"),
    ];
    let mut seen = headers(&claims);
    client("", tcp("192.0.2.7"), &claims).tell(&mut seen);
    let expected = [("accept", "*/*"), ("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "http")];
    assert_eq!(seen, headers(&expected));

    let mut seen = headers(&claims);
    client("192.0.2.7", tcp("192.0.2.7"), &claims).tell(&mut seen);
    assert_eq!(seen["x-forwarded-for"], "6.6.6.6");
    assert_eq!(seen["x-forwarded-host"], "evil.example");
    assert_eq!(seen["x-forwarded-prefix"], "/admin");
    assert!(!seen.contains_key("x-real-ip") && !seen.contains_key("forwarded"));

    // Nor fields of the kind that the proxy passes on as they came.
    let mut seen = headers(&claims);
    let trusted: TrustedProxies = "192.0.2.7".parse().unwrap();
    let proxy = tcp("192.0.2.7");
    trusted.client(ForwardedBy::Forwarded, proxy, Secure::Plain, &seen).tell(&mut seen);
    let expected = [("accept", "*/*"), ("x-forwarded-for", "6.6.6.6"), ("x-forwarded-proto", "http")];
    assert_eq!(seen, headers(&expected));

    let mut seen = headers(&claims);
    client("", Peer::Unix, &claims).tell(&mut seen);
    assert!(!seen.contains_key("x-forwarded-for"));
}

#[test]
fn what_is_no_proxy_is_named() {
    let error = "10.0.0.0/8,10.0.0.0/33".parse::<TrustedProxies>().unwrap_err();
    assert!(error.to_string().starts_with("\"10.0.0.0/33\" is no proxy"), "{error}");
    for text in ["localhost", "10.0.0.1:80", "*", "all", "10.0.0.0/-1"] {
        assert!(text.parse::<TrustedProxies>().is_err(), "{text}");
    }
    assert_eq!("".parse(), Ok(TrustedProxies::default()));
}
