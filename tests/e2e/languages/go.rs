//! Go: programs with `net/http/cgi`.

use wharf_tests::fixture::{Tools, with_tools};
use wharf_tests::http::{get, request};
use wharf_tests::network::Host;
use wharf_tests::project::Project;
use wharf_tests::wharf::{Wharf, text};

use super::body;

const HELLO: &str = r#"package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"os"
	"strings"

	"example.test/app/greet"
)

func main() {
	cgi.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			n, _ := io.Copy(io.Discard, r.Body)
			http.SetCookie(w, &http.Cookie{Name: "a", Value: "1"})
			http.SetCookie(w, &http.Cookie{Name: "b", Value: "2"})
			w.WriteHeader(http.StatusCreated)
			fmt.Fprintf(w, "%d %s", n, suffix())
			return
		}
		// Memory that Go's heap has to grow for, so that what else lies there would suffer.
		big := strings.Repeat("x", 20<<20)
		fmt.Fprintf(w, "%s %s %s %d", greet.Text, os.Getenv("WHARF_PARAM_NAME"), os.Getenv("WORD"), len(big))
	}))
}
"#;

fn project() -> Project {
    Project::empty()
        .with("go.mod", "module example.test/app\n\ngo 1.21\n")
        .with("greet/greet.go", "package greet\n\nconst Text = \"hello\"\n")
        .with("api/[name].go", HELLO)
        .with("api/suffix.go", "package main\n\nfunc suffix() string { return \"bytes\" }\n")
        .with("wharf.toml", "[workers.\"api/[name]\"]\nenv = { WORD = \"there\" }\n")
}

fn wharf() -> Wharf {
    with_tools(Wharf::new(), Tools::Go)
}

#[test]
fn a_go_program_answers_with_packages_parameters_and_a_heap_that_grows() {
    let project = project();
    let wharf = wharf();
    let server = wharf.serve(text(project.path()));
    // Each request has an instance of its own, and none finds what another left.
    for name in ["ada", "bob", "eve"] {
        assert_eq!(body(&server, &format!("/api/{name}")), format!("hello {name} there 20971520"));
    }
    let posted = request(&Host, &["--data", &"y".repeat(5000)], &server.at("/api/x"));
    assert_eq!((posted.status, posted.body.as_str()), (201, "5000 bytes"));
    assert_eq!(posted.headers("set-cookie").collect::<Vec<_>>(), ["a=1", "b=2"]);
    // What is no program is no worker.
    assert_eq!(get(&Host, &server.at("/greet/greet")).status, 404);
}

#[test]
fn an_edited_package_makes_another_program_and_an_unchanged_one_the_same() {
    let (wharf, project) = (wharf(), project());
    let build = |tag: &str| wharf.build(project.path(), &format!("localhost/go:{tag}"));
    let first = build("1");
    assert_eq!(build("2"), first);
    fs_err::write(project.path().join("greet/greet.go"), "package greet\n\nconst Text = \"bye\"\n").unwrap();
    assert_ne!(build("3"), first);
    fs_err::write(project.path().join("greet/greet.go"), "package greet\n\nconst Text = \"hello\"\n")
        .unwrap();
    // Not from the cache: Go makes the same bytes again.
    assert_eq!(with_tools(Wharf::new(), Tools::Go).build(project.path(), "localhost/go:4"), first);
}

#[test]
fn what_go_refuses_is_said_with_its_place_and_what_to_do() {
    let wharf = wharf();
    for (source, expected, hint) in [
        ("package main\n\nfunc main() {\n\tmissing()\n}\n", "api/x.go:4:2: undefined: missing", ""),
        (
            "package main\n\nimport _ \"example.com/nowhere\"\n\nfunc main() {\n}\n",
            "example.com/nowhere",
            "hint: in the folder of the worker: go mod init",
        ),
    ] {
        let project = Project::empty().with("api/x.go", source);
        let refused = wharf.run(&["build", text(project.path()), "-t", "localhost/x"]);
        let error = refused.refusal();
        assert!(error.contains("cannot build Go workers") && error.contains(expected), "{error}");
        assert!(error.contains(hint), "{error}");
    }
}
