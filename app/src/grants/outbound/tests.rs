//! Which patterns cover which requests.

use super::*;

fn covers(pattern: &str, request: &str) -> bool {
    let (method, url) = request.split_once(' ').unwrap();
    let (scheme, authority) = url.split_once("://").unwrap();
    let scheme = if scheme == "https" { OutboundScheme::Https } else { OutboundScheme::Http };
    let (host, port) = split_port(authority);
    let host = host.parse().unwrap();
    let port = port.map_or(scheme.default_port(), |port| port.parse().unwrap());
    let pattern: Outbound = pattern.parse().unwrap();
    pattern.covers(&OutboundRequest { method, scheme, host: &host, port })
}

#[test]
fn a_pattern_covers_its_scheme_host_and_port_alone() {
    let pattern = "https://api.example.com";
    assert!(covers(pattern, "GET https://api.example.com"));
    assert!(covers(pattern, "POST https://API.Example.COM.:443"), "case and the last dot don't count");
    for other in [
        "GET http://api.example.com",
        "GET https://api.example.com:8443",
        "GET https://example.com",
        "GET https://x.api.example.com",
        "GET https://api.example.com.evil.net",
        "GET https://evilapi.example.com",
    ] {
        assert!(!covers(pattern, other), "{other}");
    }
}

#[test]
fn a_star_covers_what_is_below_and_not_itself() {
    let pattern = "https://*.example.com";
    assert!(covers(pattern, "GET https://a.example.com"));
    assert!(covers(pattern, "GET https://a.b.example.com"));
    assert!(!covers(pattern, "GET https://example.com"));
    assert!(!covers(pattern, "GET https://evilexample.com"));
    assert!(covers("https://*", "GET https://anything.net"));
    assert!(!covers("https://*", "GET https://8.8.8.8"), "an address needs an entry by address");
}

#[test]
fn methods_and_ports_narrow_a_pattern() {
    assert!(covers("GET,HEAD http://a.net", "HEAD http://a.net"));
    assert!(!covers("GET,HEAD http://a.net", "POST http://a.net"));
    assert!(!covers("GET http://a.net", "get http://a.net"), "methods are case-sensitive");
    assert!(covers("http://a.net:*", "PUT http://a.net:8080"));
    assert!(!covers("http://a.net:8080", "PUT http://a.net"));
}

#[test]
fn addresses_are_covered_by_address_or_block() {
    assert!(covers("http://10.0.0.5:8080", "GET http://10.0.0.5:8080"));
    assert!(covers("http://10.0.0.0/8:8080", "GET http://10.1.2.3:8080"));
    assert!(!covers("http://10.0.0.0/8:8080", "GET http://11.1.2.3:8080"));
    assert!(covers("http://[fd00::/8]", "GET http://[fd12::1]"));
    assert!(covers("https://[::1]:8443", "GET https://[::1]:8443"));
    assert!(covers("http://10.0.0.5", "GET http://[::ffff:10.0.0.5]"), "a mapped address is that address");
    assert!(covers("http://[::ffff:10.0.0.5]", "GET http://10.0.0.5"));
}

#[test]
fn only_entries_by_address_cover_addresses_behind_names() {
    let host = "db.internal".parse().unwrap();
    let request = OutboundRequest { method: "GET", scheme: OutboundScheme::Http, host: &host, port: 80 };
    let address = "10.0.0.5".parse().unwrap();
    let bits = |pattern: &str| pattern.parse::<Outbound>().unwrap().covers_address(&request, address);
    assert_eq!(bits("http://10.0.0.5"), Some(32));
    assert_eq!(bits("http://10.0.0.0/8"), Some(8));
    assert_eq!(bits("http://db.internal"), None);
    assert_eq!(bits("http://*"), None);
    assert_eq!(bits("http://10.0.0.5:81"), None);
    assert_eq!(bits("POST http://10.0.0.5"), None);
}

#[test]
fn patterns_are_written_as_they_are_read() {
    for pattern in [
        "https://api.example.com",
        "GET,HEAD http://*.example.com:8080",
        "https://*:*",
        "http://10.0.0.0/8",
        "http://[fd00::/8]:8080",
        "https://[2001:db8::1]",
    ] {
        assert_eq!(pattern.parse::<Outbound>().unwrap().to_string(), pattern);
    }
}

#[test]
fn a_malformed_pattern_is_told_what_was_expected() {
    for (pattern, expected) in [
        ("api.example.com", "http://, https:// or tcp://"),
        ("ftp://a.net", "http://, https:// or tcp://"),
        ("get https://a.net", "methods in upper case"),
        ("GET, https://a.net", "methods in upper case"),
        (" https://a.net", "methods in upper case"),
        ("CONNECT https://a.net", "another method than CONNECT"),
        ("https://a.net/path", "no path"),
        ("https://a.net:0", "a port"),
        ("https://a.net:+80", "a port"),
        ("https://a.net:65536", "a port"),
        ("https://a.net:", "a port"),
        ("https://u:p@a.net", "no user"),
        ("https://a.*.net", "\"*\" only as the whole host"),
        ("https://*.", "a domain"),
        ("https://*.10.0.0.1", "a domain"),
        ("https://*a.net", "\"*\" only as"),
        ("https://10.0.0.1/8", "bits past the prefix"),
        ("https://10.0.0.0/33", "an address, or a block"),
        ("https://[::1", "a \"]\""),
        ("https://[x]", "an address, or a block"),
        ("https://::1", "a host name"),
        ("https://0x7f.1", "a host name"),
        ("https://2130706433", "a host name"),
        ("https://bücher.example", "a host name"),
        ("https://", "a host name"),
        ("https://a..net", "a host name"),
        ("tcp://a.net", "a port, as in"),
        ("GET tcp://a.net:1", "no method"),
        ("", "http://, https:// or tcp://"),
    ] {
        let error = pattern.parse::<Outbound>().unwrap_err().to_string();
        assert!(error.contains(expected), "{pattern:?}: {error}");
    }
}

#[test]
fn hosts_that_are_addresses_in_disguise_are_no_names() {
    for host in [
        "2130706433",
        "0x7f.1",
        "127.1",
        "0177.0.0.1",
        "1.2.3.4.5",
        "0x7f000001",
        "a.0x",
        "[::1]x",
        "a b",
        "a%2eb",
    ] {
        assert_eq!(host.parse::<HostName>(), Err(MalformedHost), "{host}");
    }
    assert_eq!("Example.COM.".parse::<HostName>(), Ok(HostName::Name("example.com".into())));
    assert_eq!("[::FFFF:127.0.0.1]".parse::<HostName>(), Ok(HostName::Address("127.0.0.1".parse().unwrap())));
}

#[test]
fn tcp_is_granted_apart_from_http() {
    let entry: Outbound = "tcp://*.db.internal:5432".parse().unwrap();
    assert!(entry.is_tcp() && !entry.is_https());
    assert_eq!(entry.to_string(), "tcp://*.db.internal:5432");
    let host: HostName = "a.db.internal".parse().unwrap();
    let asked = |scheme, port| OutboundRequest { method: "", scheme, host: &host, port };
    assert!(entry.names(&host) && !entry.names(&"db.internal".parse().unwrap()));
    assert!(entry.covers(&asked(OutboundScheme::Tcp, 5432)));
    assert!(!entry.covers(&asked(OutboundScheme::Tcp, 5433)));
    assert!(!entry.covers(&asked(OutboundScheme::Https, 5432)));
    assert!(
        !"https://a.db.internal:5432".parse::<Outbound>().unwrap().covers(&asked(OutboundScheme::Tcp, 5432))
    );
}
