//! `wharf serve`: a folder or an image, with no engine, registry or root.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wharf_tests::fixture;
use wharf_tests::http::{get, request};
use wharf_tests::network::Host;
use wharf_tests::process::{Running, run, wait_for};
use wharf_tests::project::Project;
use wharf_tests::wharf::{Wharf, text};

#[test]
fn serve_prints_the_routes_and_then_the_url() {
    let (wharf, project) = (Wharf::new(), Project::hello());
    let server = wharf.serve(text(project.path()));
    let log = server.daemon.log();
    let route = log.lines().position(|line| line.contains("/api/hello") && line.contains("worker"));
    let url = log.lines().position(|line| line.contains(&server.url));
    assert!(route.is_some() && route < url, "expected the worker's route, then the URL:\n{log}");
}

#[test]
fn a_static_file_has_its_type_and_a_strong_etag_that_is_honoured() {
    let (wharf, project) = (Wharf::new(), Project::hello().with("public/module.mjs", "export {};"));
    let server = wharf.serve(text(project.path()));
    let page = get(&Host, &server.at("/"));
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"), "{page:?}");
    assert_eq!(page.body, fs_err::read_to_string(project.path().join("public/index.html")).unwrap());
    assert!(get(&Host, &server.at("/style.css")).header("content-type").starts_with("text/css"));
    assert!(get(&Host, &server.at("/module.mjs")).header("content-type").starts_with("text/javascript"));

    let tag = page.header("etag");
    assert!(tag.starts_with('"'), "expected a strong ETag, found {tag:?}");
    let again = request(&Host, &["-H", &format!("If-None-Match: {tag}")], &server.at("/"));
    assert_eq!((again.status, again.body.as_str()), (304, ""));
}

#[test]
fn an_image_has_compressed_siblings_for_clients_that_ask_and_a_project_has_none() {
    let script = "export const greeting = 'hello';\n".repeat(200);
    let (wharf, project) = (Wharf::new(), Project::hello().with("public/big.js", &script));
    let build = |arguments: &[&str]| {
        let arguments = [&["build", text(project.path()), "-t", "example.test/app:1"], arguments].concat();
        wharf.run(&arguments).succeeded();
    };
    let ask = |url: &str, coding: &str| {
        request(&Host, &["--compressed", "-H", &format!("Accept-Encoding: {coding}")], url)
    };
    build(&[]);
    let server = wharf.serve("example.test/app:1");
    let mut tags = vec![get(&Host, &server.at("/big.js")).header("etag").to_owned()];
    for coding in ["br", "zstd", "gzip"] {
        // curl decodes it: what it shows is what a browser would.
        let response = ask(&server.at("/big.js"), coding);
        assert_eq!((response.header("content-encoding"), response.body.as_str()), (coding, script.as_str()));
        assert_eq!(response.header("vary"), "accept-encoding");
        let length: usize = response.header("content-length").parse().unwrap();
        assert!(length < script.len() / 10, "{coding}: {length}");
        assert!(!tags.contains(&response.header("etag").to_owned()), "{response:?}");
        tags.push(response.header("etag").to_owned());
    }
    assert_eq!(get(&Host, &server.at("/big.js")).body, script);
    assert_eq!(get(&Host, &server.at("/big.js.br")).status, 404);
    drop(server);

    build(&["--no-precompress"]);
    for target in ["example.test/app:1", text(project.path())] {
        let server = wharf.serve(target);
        let response = ask(&server.at("/big.js"), "br");
        assert_eq!((response.header("content-encoding"), response.header("vary")), ("", ""), "{target}");
        assert_eq!(response.body, script);
    }
}

#[test]
fn an_unknown_path_is_not_found() {
    let (wharf, project) = (Wharf::new(), Project::hello());
    let server = wharf.serve(text(project.path()));
    assert_eq!(get(&Host, &server.at("/nothing/here")).status, 404);
    assert_eq!(request(&Host, &["--path-as-is"], &server.at("/../api/hello.wasm")).status / 100, 4);
}

#[test]
fn head_has_the_headers_of_get_and_no_body() {
    let (wharf, project) = (Wharf::new(), Project::hello());
    let server = wharf.serve(text(project.path()));
    let page = get(&Host, &server.at("/index.html"));
    let page = if page.status == 200 { page } else { get(&Host, &server.at("/")) };
    let head = request(&Host, &["--head"], &server.at("/"));
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-length"), page.body.len().to_string());
    assert_eq!(head.header("etag"), page.header("etag"));
}

#[test]
fn a_folder_without_its_slash_redirects_to_it() {
    let (wharf, project) =
        (Wharf::new(), Project::hello().with("public/dist/index.html", "<title>d</title>"));
    let server = wharf.serve(text(project.path()));
    let redirect = get(&Host, &server.at("/dist?path=a"));
    assert_eq!(redirect.status, 308);
    let location = redirect.header("location");
    assert!(location.ends_with("/dist/?path=a"), "expected the slash and the query, found {location:?}");
    assert_eq!(get(&Host, &server.at("/dist/")).status, 200);
}

#[test]
fn a_worker_sees_the_query_and_the_body() {
    let (wharf, project) = (Wharf::new(), Project::hello());
    let server = wharf.serve(text(project.path()));
    let greeting = get(&Host, &server.at("/api/hello")).json();
    assert_eq!(greeting["message"], "hello");
    let greeting = get(&Host, &server.at("/api/hello?name=Ada%20L.")).json();
    assert_eq!(greeting["name"], "Ada L.");
    let body = "x".repeat(100_000);
    let file = wharf.scratch().join("body");
    fs_err::write(&file, &body).unwrap();
    let echo = request(
        &Host,
        &["--data-binary", &format!("@{}", text(&file)), "-H", "Content-Type: text/plain"],
        &server.at("/api/hello"),
    );
    assert_eq!((echo.status, echo.header("content-type")), (200, "text/plain"));
    assert!(echo.body == body, "expected the body back, found {} bytes", echo.body.len());
}

#[test]
fn a_worker_that_traps_is_a_500_and_the_next_request_is_answered() {
    let (wharf, project) = (Wharf::new(), Project::hello());
    let server = wharf.serve(text(project.path()));
    let trapped = get(&Host, &server.at("/api/hello?trap=1"));
    assert_eq!(trapped.status, 500);
    assert!(
        !trapped.body.contains("wasm backtrace"),
        "a client must not see the worker's insides: {}",
        trapped.body
    );
    assert_eq!(get(&Host, &server.at("/api/hello")).status, 200);
}

#[test]
fn a_worker_that_never_ends_is_a_504_and_holds_up_nobody() {
    let wharf = Wharf::new();
    let project = Project::hello().with("wharf.toml", "[workers.\"api/hello\"]\ntimeout = \"1s\"\n");
    let server = wharf.serve(text(project.path()));
    let url = server.at("/api/hello?spin=1");
    let mut spinning: Vec<_> = (0..4)
        .map(|_| {
            let mut curl = Command::new("curl");
            Running::start(curl.args([
                "--silent",
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_code}",
                &url,
            ]))
        })
        .collect();
    assert_eq!(get(&Host, &server.at("/style.css")).status, 200);
    assert!(
        spinning.iter_mut().any(|curl| !curl.has_ended()),
        "expected the page while the workers still ran"
    );
    for curl in spinning {
        let outcome = curl.finish();
        assert!(
            outcome.took < Duration::from_secs(10),
            "expected an end soon after 1 s, not {:?}",
            outcome.took
        );
        assert_eq!(outcome.output(), "504");
    }
    assert_eq!(get(&Host, &server.at("/api/hello")).status, 200);
}

#[test]
fn a_port_in_use_is_said_with_a_hint() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (wharf, project) = (Wharf::new(), Project::hello());
    let error = wharf.run(&["serve", text(project.path()), "--addr", &address]).exited(1).refusal();
    assert!(error.contains(&address) && error.contains("in use"), "{error}");
    assert!(error.contains("hint: "), "{error}");
}

#[test]
fn serve_ends_with_success_on_sigterm_and_on_sigint() {
    let (wharf, project) = (Wharf::new(), Project::hello());
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = wharf.serve(text(project.path()));
        assert_eq!(get(&Host, &server.at("/")).status, 200);
        let (code, took) = server.daemon.end_by(signal);
        assert_eq!(code, Some(0), "after {signal}");
        assert!(took < Duration::from_secs(2), "{signal} took {took:?}");
    }
}

#[test]
fn an_image_a_layout_and_an_archive_are_served_like_the_folder() {
    let (wharf, project) = (Wharf::new(), Project::hello());
    let _ = wharf.build(project.path(), "example.test/hello:1");
    let layout = wharf.scratch().join("layout");
    wharf
        .run(&["build", text(project.path()), "-t", "example.test/hello:1", "-o", text(&layout)])
        .succeeded();
    let archive = wharf.scratch().join("hello.tar");
    wharf.run(&["save", "example.test/hello:1", "-o", text(&archive)]).succeeded();
    for target in ["example.test/hello:1", text(&layout), text(&archive)] {
        let server = wharf.serve(target);
        assert!(server.daemon.log().contains("/api/hello"), "{target}:\n{}", server.daemon.log());
        assert_eq!(get(&Host, &server.at("/style.css")).status, 200, "{target}");
        assert_eq!(get(&Host, &server.at("/api/hello")).json()["message"], "hello", "{target}");
    }
}

#[test]
fn a_python_worker_answers_beside_the_site() {
    let server = fixture::python().serve(fixture::PYTHON);
    let page = get(&Host, &server.at("/"));
    assert!(page.header("content-type").starts_with("text/html"), "{page:?}");
    assert!(page.body.contains("href=\"/dist/\""), "{page:?}");
    let json = request(&Host, &["-H", "Accept: application/json"], &server.at("/"));
    assert_eq!((json.status, json.header("content-type")), (200, "application/json"));
    assert_eq!(json.json()["notebooks"], "/dist/");
    assert_eq!(get(&Host, &server.at("/dist")).status, 308);
    assert_eq!(get(&Host, &server.at("/dist/lab/index.html")).status, 200);
    let module = get(&Host, &server.at("/dist/static/pyodide/pyodide.mjs"));
    assert!(
        module.header("content-type").starts_with("text/javascript"),
        "{}",
        module.header("content-type")
    );
    let wasm = request(&Host, &["--head"], &server.at("/dist/static/pyodide/pyodide.asm.wasm"));
    assert_eq!(wasm.header("content-type"), "application/wasm");
}

#[test]
fn python_workers_have_parameters_modules_headers_and_limits() {
    let project = Project::empty()
        .with("_lib.py", "def shout(text):\n    return text.upper()\n")
        .with(
            "api/[id].py",
            "from _lib import shout\n\n\
             def worker(request):\n    \
                 if request.method == 'POST':\n        \
                     response = Response.json({'got': request.json()})\n        \
                     response.headers.add('set-cookie', 'a=1')\n        \
                     response.headers.add('set-cookie', 'b=2')\n        \
                     return response\n    \
                 if request.params['id'].isdigit():\n        \
                     return Response(status=int(request.params['id']))\n    \
                 return Response(shout(request.params['id']) + request.args.get('q', ''))\n",
        )
        .with(
            "docs/[...rest].py",
            "import random\n\n\
             def worker(request):\n    \
                 if request.params['rest'] == 'echo':\n        \
                     return Response(f'{request.method} {request.url} {request.text}')\n    \
                 if request.params['rest'] == 'random':\n        \
                     return Response(f'{random.random()}')\n    \
                 if request.params['rest'] == 'error':\n        \
                     raise ValueError('asked to')\n    \
                 return Response(b'x' * 3_000_000, headers={'content-type': 'x/y'})\n",
        )
        .with("wharf.toml", "[workers.\"api/[id]\"]\nbody = \"1KiB\"\n");
    let wharf = fixture::with_python(Wharf::new());
    let server = wharf.serve(text(project.path()));

    assert_eq!(get(&Host, &server.at("/api/ada?q=%C3%A4")).body, "ADAä");
    // RFC 9110, 8.6: no length of what has no content, or of an answer that was not made.
    for (status, length) in [(200, "0"), (204, ""), (304, "")] {
        let empty = get(&Host, &server.at(&format!("/api/{status}")));
        assert_eq!((empty.status, empty.header("content-length")), (status, length));
    }
    for (path, length) in [("/api/ada", "3"), ("/api/200", "")] {
        let head = request(&Host, &["--head"], &server.at(path));
        assert_eq!((head.status, head.header("content-length")), (200, length), "{path}");
    }
    let posted = request(&Host, &["--data", "{\"x\":[1]}"], &server.at("/api/7"));
    assert_eq!(posted.json()["got"]["x"][0], 1);
    assert_eq!(posted.headers("set-cookie").collect::<Vec<_>>(), ["a=1", "b=2"]);
    let large = get(&Host, &server.at("/docs/a/b"));
    assert_eq!((large.body.len(), large.header("content-type")), (3_000_000, "x/y"));

    let error = get(&Host, &server.at("/docs/error"));
    assert_eq!(error.status, 500);
    assert!(!error.body.contains("asked to"), "{}", error.body);
    let log = server.daemon.log();
    assert!(log.contains("\"docs/[...rest].py\", line 9") && log.contains("asked to"), "{log}");

    // A body is for the method to give a meaning to (RFC 9110, 9.3.1).
    let url = server.at("/docs/echo?a=1");
    for framing in ["X-Framing: by length", "Transfer-Encoding: chunked"] {
        let asked = request(&Host, &["--request", "GET", "--header", framing, "--data", "why"], &url);
        assert_eq!(asked.body, format!("GET {url} why"), "{framing}");
    }
    // What was made at build time is the same in each instance; chance is not.
    let chance = || get(&Host, &server.at("/docs/random")).body;
    assert_ne!(chance(), chance());

    let body = "\"".repeat(2000);
    let announced = request(&Host, &["--data", &body], &server.at("/api/7"));
    assert_eq!(announced.status, 413);
    let chunked =
        request(&Host, &["--header", "Transfer-Encoding: chunked", "--data", &body], &server.at("/api/7"));
    assert_eq!(chunked.status, 413);
}

#[test]
fn an_answer_that_is_cut_off_does_not_look_whole() {
    let wharf = Wharf::new();
    let project = Project::hello().with("wharf.toml", "[workers.\"api/hello\"]\ntimeout = \"1s\"\n");
    let server = wharf.serve(text(project.path()));
    // A body that is echoed as it comes, and never comes to its end.
    let address = server.url.strip_prefix("http://").unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = "POST /api/hello HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    client.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // Ends with the connection, which may be reset.
    let _ = client.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    let timed_out = answer.starts_with("HTTP/1.1 504");
    let broken = answer.starts_with("HTTP/1.1 200") && !answer.ends_with("0\r\n\r\n");
    assert!(timed_out || broken, "{answer:?}");
}

/// A process whose output nobody reads, and which ends with the test.
struct Unread(Child);

impl Drop for Unread {
    fn drop(&mut self) {
        // It has mostly ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_log_that_nobody_reads_holds_up_nobody() {
    let (wharf, project) = (Wharf::new(), Project::hello());
    let mut command =
        wharf.command(&Host, &["serve", text(project.path()), "--addr", "127.0.0.1:0", "--quiet"]);
    let mut server = Unread(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let (_, address) = line.trim_end().rsplit_once("http://").unwrap();
    // Each leaves a trap's backtrace: far more than a pipe holds.
    let traps = format!("http://{address}/api/hello?trap=1&n=[1-300]");
    run(Command::new("curl").args(["--silent", "--output", "/dev/null", &traps])).succeeded();
    assert_eq!(get(&Host, &format!("http://{address}/style.css")).status, 200);
    kill(Pid::from_raw(server.0.id().cast_signed()), Signal::SIGTERM).unwrap();
    let ended = wait_for(Duration::from_secs(10), || server.0.try_wait().unwrap());
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
}
