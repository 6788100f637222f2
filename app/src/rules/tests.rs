use super::*;

fn captured(pattern: &str, path: &str) -> Option<String> {
    let pattern = AddressPattern::parse(pattern).unwrap();
    let mut captures = pattern.captures("www.example.com:8080", path)?;
    captures.sort_unstable();
    Some(captures.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "))
}

#[test]
fn splats_take_all_that_they_can_and_placeholders_a_part_of_one_segment() {
    for (pattern, path, expected) in [
        ("/a", "/a", Some("")),
        ("/a", "/a/", None),
        ("/*", "/", Some("splat=")),
        ("/*", "/a/b", Some("splat=a/b")),
        ("/a/*", "/a", None),
        ("/a*", "/abc", Some("splat=bc")),
        ("/*/b", "/a/b/b", Some("splat=a/b")),
        ("/*.jpg", "/x/y.jpg", Some("splat=x/y")),
        ("/*.jpg", "/x/y.png", None),
        ("/a*a", "/a", None),
        ("/n/:y/:m", "/n/2024/05", Some("m=05 y=2024")),
        ("/n/:y/:m", "/n/2024/05/06", None),
        ("/n/:y/:m", "/n//05", None),
        ("/n/:y/", "/n/2024/", Some("y=2024")),
        ("/p-:a-:b", "/p-1-2-3", Some("a=1 b=2-3")),
        ("/p/:a.html", "/p/x.html.html", Some("a=x.html")),
        ("/p/:a.html", "/p/.html", None),
        ("/:a/*", "/x/y/z", Some("a=x splat=y/z")),
        ("/*/c/:id", "/a/c/b/c/7", Some("id=7 splat=a/c/b")),
        ("/*/c-:id", "/a/c-7", Some("id=7 splat=a")),
        ("/*-:id", "/a-b-7", Some("id=7 splat=a-b")),
        ("/*-:id", "/a-", None),
        ("/%C3%A4 b", "/ä b", Some("")),
        ("/a:1", "/a:1", Some("")),
        ("https://www.example.com/*", "/x", Some("splat=x")),
        ("https://WWW.:d.com", "/", Some("d=example")),
        ("https://example.com/*", "/x", None),
        ("https://a.www.example.com/*", "/x", None),
    ] {
        assert_eq!(captured(pattern, path).as_deref(), expected, "{pattern} {path}");
    }
}

#[test]
fn patterns_that_could_mean_several_things_are_refused() {
    let problem = |text: &str| AddressPattern::parse(text).unwrap_err();
    assert!(matches!(problem("a"), RuleProblem::Pattern(_)));
    assert!(matches!(problem("ftp://x/"), RuleProblem::Pattern(_)));
    assert!(matches!(problem("/%ff"), RuleProblem::Pattern(_)));
    assert!(matches!(problem("/*/*"), RuleProblem::Splats(_)));
    assert!(matches!(problem("/:a:b"), RuleProblem::Adjacent(_)));
    assert!(matches!(problem("/:a*"), RuleProblem::Adjacent(_)));
    assert!(matches!(problem("/*:a"), RuleProblem::Adjacent(_)));
    assert!(matches!(problem("/:a/:a"), RuleProblem::Twice { .. }));
    assert!(matches!(problem("/*/:splat"), RuleProblem::Twice { .. }));
    assert!(matches!(problem("/a?b"), RuleProblem::Query(_)));
    assert!(matches!(problem("/a#b"), RuleProblem::Query(_)));
    assert!(matches!(problem("https://x:80/"), RuleProblem::Host(_)));
    assert!(matches!(problem("https://*.x/"), RuleProblem::Host(_)));
    assert!(matches!(problem("https:///"), RuleProblem::Host(_)));
}

#[test]
fn a_template_fills_in_what_the_pattern_has_and_leaves_other_colons() {
    let template = Template::parse("</:splat/x>; a=data:image http://h:80 :splats", &["splat"]);
    let filled = template.fill(&vec![("splat", "a b")], |_, value| encode_part(value));
    assert_eq!(filled, "</a%20b/x>; a=data:image http://h:80 :splats");
    assert_eq!(Template::parse("no-store", &["splat"]).constant(), Some("no-store"));
}
