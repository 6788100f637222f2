use super::*;

fn full(text: &str) -> String {
    text.parse::<Reference>().unwrap().to_string()
}

fn refused(text: &str) -> InvalidReference {
    text.parse::<Reference>().expect_err(text)
}

#[test]
fn short_names_are_completed_as_docker_does() {
    for (text, expected) in [
        ("hello", "docker.io/library/hello:latest"),
        ("hello:1", "docker.io/library/hello:1"),
        ("me/hello:1", "docker.io/me/hello:1"),
        ("docker.io/hello", "docker.io/library/hello:latest"),
        ("index.docker.io/me/hello", "docker.io/me/hello:latest"),
        ("127.0.0.1:5000/x:1", "127.0.0.1:5000/x:1"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/a/b/c:v1.2", "localhost:5000/a/b/c:v1.2"),
        ("[::1]:5000/x", "[::1]:5000/x:latest"),
        ("registry.example.com/a-b/c__d.e:A_b-c.9", "registry.example.com/a-b/c__d.e:A_b-c.9"),
        ("REGISTRY/x", "REGISTRY/x:latest"),
    ] {
        assert_eq!(full(text), expected);
        assert_eq!(full(expected), expected, "the full name means itself");
    }
}

#[test]
fn familiar_names_leave_out_the_defaults() {
    for (text, expected) in [
        ("docker.io/library/hello:1", "hello:1"),
        ("docker.io/me/hello:1", "me/hello:1"),
        ("127.0.0.1:5000/library/x:1", "127.0.0.1:5000/library/x:1"),
        ("hello", "hello:latest"),
    ] {
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.familiar(), expected);
        assert_eq!(reference.familiar().parse::<Reference>().unwrap(), reference);
    }
}

#[test]
fn of_a_tag_and_a_digest_the_digest_counts() {
    let digest = Digest::of(b"");
    let reference: Reference = format!("x:1@{digest}").parse().unwrap();
    assert_eq!(reference.target(), &Target::Digest(digest));
    assert_eq!(reference.to_string(), format!("docker.io/library/x@{digest}"));
    assert!(matches!(refused("x@sha256:12"), InvalidReference::Digest { .. }));
}

#[test]
fn bad_names_say_what_is_wrong() {
    assert!(matches!(refused("Hello:1"), InvalidReference::UpperCase { .. }));
    assert_eq!(refused("Hello:1").hint().as_deref(), Some("write \"hello:1\""));
    assert!(matches!(refused(""), InvalidReference::Empty { .. }));
    assert!(matches!(refused(":1"), InvalidReference::Empty { .. }));
    assert!(matches!(refused("127.0.0.1:5000/"), InvalidReference::Empty { .. }));
    assert!(matches!(refused("x:"), InvalidReference::Tag { .. }));
    assert!(matches!(refused("x:-a"), InvalidReference::Tag { .. }));
    assert!(matches!(refused("x: 1"), InvalidReference::Tag { .. }));
    assert!(matches!(refused(&format!("x:{}", "a".repeat(129))), InvalidReference::Tag { .. }));
    assert!(matches!(refused("a..b"), InvalidReference::Repository { .. }));
    assert!(matches!(refused("a___b"), InvalidReference::Repository { .. }));
    assert!(matches!(refused("a//b"), InvalidReference::Repository { .. }));
    assert!(matches!(refused("-a"), InvalidReference::Repository { .. }));
    assert!(matches!(refused("a b"), InvalidReference::Repository { .. }));
    assert!(matches!(refused("../x"), InvalidReference::Registry { .. }));
    assert!(matches!(refused("host:99999/x"), InvalidReference::Registry { .. }));
    assert!(matches!(refused("http://host/x"), InvalidReference::Registry { .. }));
    assert!(matches!(refused(&"a".repeat(300)), InvalidReference::TooLong { .. }));
}

#[test]
fn loopback_registries_are_recognised() {
    for text in ["127.0.0.1:5000/x", "127.9.9.9/x", "localhost/x", "localhost:1/x", "[::1]:5000/x", "[::1]/x"]
    {
        assert!(text.parse::<Reference>().unwrap().is_loopback(), "{text}");
    }
    for text in ["x", "10.0.0.1:5000/x", "localhost.example.com/x", "[2001:db8::1]/x"] {
        assert!(!text.parse::<Reference>().unwrap().is_loopback(), "{text}");
    }
}

// Found by the fuzz target `reference`.
#[test]
fn the_familiar_form_means_the_same_image() {
    for name in
        ["docker.io/a.b/c:1", "docker.io/localhost/c:1", "docker.io/library/x/y:1", "docker.io/docker.io/o:1"]
    {
        let reference: Reference = name.parse().unwrap();
        assert_eq!(reference.familiar().parse(), Ok(reference), "{name}");
    }
    let reference: Reference = "docker.io/a.b/c:1".parse().unwrap();
    assert_eq!(reference.familiar(), "docker.io/a.b/c:1");
}
