//! Projects of Wasm Workers Server, as its documentation says to write them: see
//! tests/wws/README.md.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, OnceLock};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use hyper::header::HeaderMap;
use regex_lite::Regex;
use serde_json::Value;
use tempfile::TempDir;
use wharf_tests::client::Connection;
use wharf_tests::fixture::{Tools, with_tools};
use wharf_tests::http::get;
use wharf_tests::network::Host;
use wharf_tests::process::{Daemon, run};
use wharf_tests::project::Project;
use wharf_tests::testbed;
use wharf_tests::wharf::{Server, Wharf, text};

static CASES: LazyLock<Value> = LazyLock::new(|| {
    let text = fs_err::read_to_string(folder().join("cases.json")).expect("the cases can be read");
    serde_json::from_str(&text).expect("cases.json is of its form")
});

fn folder() -> PathBuf {
    testbed::repository().join("tests/wws")
}

#[test]
fn routes_are_those_of_its_files() {
    check(&["routes", "prefix app", "prefix /app/", "prefix of two parts", "catchall"], &[Tools::JavaScript]);
}

#[test]
fn workers_in_javascript() {
    check(&["JavaScript"], &[Tools::JavaScript]);
}

#[test]
fn workers_in_python() {
    check(&["Python"], &[Tools::Python]);
}

#[test]
fn workers_in_ruby() {
    check(&["Ruby"], &[Tools::Ruby]);
}

#[test]
fn workers_that_are_programs() {
    check(&["Wasm", "kits"], &[]);
}

#[test]
fn languages_share_a_store() {
    check(&["shared"], &[Tools::JavaScript, Tools::Python, Tools::Ruby]);
}

/// The same programs with a store on a Redis server, which `X.toml` has no word for.
#[test]
fn a_store_may_be_on_a_server() {
    let wharf = Wharf::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mut redis = Command::new("redis-server");
    redis
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .current_dir(wharf.scratch());
    let mut redis = Daemon::start("redis", wharf.scratch(), &mut redis);
    redis.wait_until("it is ready", |redis| redis.log().contains("Ready to accept").then_some(()));
    let counter = fs_err::read(projects().join("wasm/counter.wasm")).unwrap();
    let settings = format!(
        "[workers.counter]\nabi = \"wws\"\nkv = {{ default = \"redis://127.0.0.1:{port}?prefix=a:\" }}\n"
    );
    let project = Project::empty().with("counter.wasm", counter).with("wharf.toml", settings);
    let server = wharf.serve(text(project.path()));
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(get(&Host, &server.at("/counter")).status, 200));
        }
    });
    assert_eq!(get(&Host, &server.at("/counter")).body, "Counter: 21", "{}", server.daemon.log());
}

/// All that is promised of the runs `names`; what differs is told together.
fn check(names: &[&str], tools: &[Tools]) {
    let data = tempfile::tempdir().expect("a folder can be made");
    let upstream = Upstream::start();
    let mut wrong = Vec::new();
    let mut count = 0;
    for name in names {
        let runs = CASES["runs"].as_array().expect("cases.json is of its form");
        let found = runs.iter().find(|run| run["name"] == *name);
        let run = found.unwrap_or_else(|| panic!("no run {name:?} in cases.json"));
        // One cache for all: a project that was built for one run need not be for the next.
        let wharf = tools
            .iter()
            .fold(Wharf::with_data(data.path().to_owned()), |wharf, tools| with_tools(wharf, *tools));
        let project = projects().join(run["project"].as_str().expect("cases.json is of its form"));
        let flags: Vec<&str> = strings(&run["flags"]).collect();
        let serve = || {
            wharf.serve_by(text(&project), &flags, |command| {
                for (name, value) in run["env"].as_object().into_iter().flatten() {
                    command.env(
                        name,
                        value.as_str().expect("cases.json is of its form").replace("{upstream}", &upstream),
                    );
                }
            })
        };
        let mut server = serve();
        for case in run["cases"].as_array().expect("cases.json is of its form") {
            if case["promised"] == false {
                continue;
            }
            if case["restart"] == true {
                drop(server);
                server = serve();
            }
            count += 1;
            if let Err(problem) = answers(&server, case) {
                wrong.push(format!("{name}, {}: {}: {problem}", case["feature"], case["request"]));
            }
        }
        if !wrong.is_empty() {
            wrong.push(server.daemon.log());
        }
    }
    assert!(wrong.is_empty(), "{} of {count} cases:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count > 0, "no case of {names:?}");
}

/// Whether the server answers as the case expects, as often as it says.
fn answers(server: &Server, case: &Value) -> Result<(), String> {
    let times = case["times"].as_u64().unwrap_or(1);
    let one = |n: u64| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be made");
        runtime.block_on(ask(server, case, n)).map_err(|error| error.to_string())
    };
    if case["parallel"] != true {
        return (1..=times).try_for_each(one);
    }
    thread::scope(|scope| {
        let asked: Vec<_> = (1..=times).map(|n| scope.spawn(move || one(n))).collect();
        asked.into_iter().try_for_each(|thread| thread.join().expect("the request ends"))
    })
}

async fn ask(server: &Server, case: &Value, n: u64) -> Result<(), wharf_tests::client::Error> {
    let (request, expected) = (&case["request"], &case["expect"]);
    let address: SocketAddr = server.url.strip_prefix("http://").unwrap_or_default().parse()?;
    let headers: Vec<(&str, &str)> = request["headers"]
        .as_object()
        .into_iter()
        .flatten()
        .flat_map(|(name, value)| values(value).map(move |value| (name.as_str(), value)))
        .collect();
    let body = match (&request["body"], &request["body_base64"]) {
        (Value::String(text), _) => text.replace("{n}", &n.to_string()).into_bytes(),
        (_, Value::String(text)) => from_base64(text),
        _ => Vec::new(),
    };
    let method: Method = request["method"].as_str().unwrap_or("GET").parse()?;
    let path = request["path"].as_str().unwrap_or("/");
    let mut connection = Connection::open(address).await?;
    let response = connection.request(method, path, &headers, body.into()).await?;
    let (head, body) = response.into_parts();
    if head.status.as_u16() != expected["status"].as_u64().unwrap_or(200) as u16 {
        return Err(format!("status {}, body {:?}", head.status, String::from_utf8_lossy(&body)).into());
    }
    for (name, value) in expected["headers"].as_object().into_iter().flatten() {
        header(&head.headers, name, value)?;
    }
    let shown = String::from_utf8_lossy(&body);
    let filled = |text: &str| text.replace("{base}", &server.url);
    let same = |is_same: bool| if is_same { Ok(()) } else { Err(format!("body {shown:?}")) };
    for (key, value) in expected.as_object().into_iter().flatten() {
        match (key.as_str(), value) {
            ("body", Value::String(text)) => same(shown == filled(text))?,
            ("body_regex", Value::String(text)) => same(Regex::new(&filled(text))?.is_match(&shown))?,
            ("body_base64", Value::String(text)) => same(body == from_base64(text))?,
            ("body_length", length) => same(Some(body.len() as u64) == length.as_u64())?,
            ("body_json", part) => {
                let part = serde_json::from_str(&filled(&part.to_string()))?;
                same(has(&serde_json::from_slice(&body)?, &part))?;
            }
            ("status" | "headers", _) => {}
            (other, _) => return Err(format!("cases.json expects {other:?}, which means nothing").into()),
        }
    }
    Ok(())
}

/// Whether the header has the value: the text, a list of all, or `{"regex": …}`.
fn header(headers: &HeaderMap, name: &str, expected: &Value) -> Result<(), String> {
    let found: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    let fits = match expected["regex"].as_str() {
        Some(pattern) => {
            found.len() == 1 && Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(found[0]))
        }
        None => found == values(expected).collect::<Vec<_>>(),
    };
    if fits { Ok(()) } else { Err(format!("header {name}: {found:?}")) }
}

/// Whether `value` has all of `part`: objects may have more members.
fn has(value: &Value, part: &Value) -> bool {
    match (value, part) {
        (Value::Object(value), Value::Object(part)) => {
            part.iter().all(|(key, part)| value.get(key).is_some_and(|value| has(value, part)))
        }
        _ => value == part,
    }
}

/// One text, or those of a list.
fn values(value: &Value) -> impl Iterator<Item = &str> {
    value.as_str().into_iter().chain(strings(value))
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn from_base64(text: &str) -> Vec<u8> {
    STANDARD.decode(text).expect("cases.json is of its form")
}

/// The folder with copies of all projects, and their programs built.
fn projects() -> &'static Path {
    static MADE: OnceLock<TempDir> = OnceLock::new();
    MADE.get_or_init(|| {
        let place = tempfile::Builder::new().prefix("wharf-wws-").tempdir().expect("a folder can be made");
        run(Command::new("cp").arg("-r").arg(folder().join("projects")).arg(place.path())).succeeded();
        let mut built: BTreeMap<(&str, &str), PathBuf> = BTreeMap::new();
        for guest in CASES["guests"].as_array().expect("cases.json is of its form") {
            let field = |name: &str| guest[name].as_str().expect("cases.json is of its form");
            let (source, target, output) =
                (field("source"), field("target"), place.path().join(field("output")));
            fs_err::create_dir_all(output.parent().expect("it lies in a folder"))
                .expect("a folder can be made");
            let from = folder().join(source);
            if let Some(made) = built.get(&(source, target)) {
                fs_err::copy(made, &output).expect("a guest can be copied");
                continue;
            }
            if target == "wat" {
                fs_err::write(&output, wat::parse_file(from).expect("the text is well-formed"))
                    .expect("a guest can be written");
            } else {
                let mut rustc = Command::new("rustc");
                let _ = testbed::with_wasm_toolchain(&mut rustc);
                rustc.args(["--edition=2024", "-O", "--target", target]);
                run(rustc.arg("-o").arg(&output).arg(from)).succeeded();
            }
            built.insert((source, target), output);
        }
        place
    })
    .path()
    .join("projects")
    .leak()
}

/// The server that the workers' own requests go to, until the test program ends.
struct Upstream;

impl Upstream {
    /// Its URL.
    fn start() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it has an address"));
        thread::spawn(move || {
            // Who breaks off has no answer to look at.
            listener.incoming().flatten().for_each(|stream| _ = Self::answer(stream));
        });
        url
    }

    fn answer(mut stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            lines.read_line(&mut line)?;
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let header = |name: &str| {
            let mut fields = head.iter().filter_map(|line| line.split_once(':'));
            let found = fields.find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map_or_else(String::new, |(_, value)| value.trim().to_owned())
        };
        let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
        lines.read_exact(&mut body)?;
        let mut words = head.first().map_or("", String::as_str).split(' ');
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let known = CASES["upstream"].as_array().expect("cases.json is of its form");
        let known =
            known.iter().find(|one| one["request"]["method"] == method && one["request"]["path"] == path);
        let Some(response) = known.map(|one| &one["response"]) else {
            return stream
                .write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        };
        let named = Regex::new(r"\{request\.([a-z-]+)\}").expect("the pattern is well-formed");
        let text = named.replace_all(
            response["body"].as_str().expect("cases.json is of its form"),
            |found: &regex_lite::Captures<'_>| match &found[1] {
                "body" => String::from_utf8_lossy(&body).into_owned(),
                name => header(name),
            },
        );
        let mut answer = format!(
            "HTTP/1.1 {} \r\ncontent-length: {}\r\nconnection: close\r\n",
            response["status"],
            text.len()
        );
        for (name, value) in response["headers"].as_object().into_iter().flatten() {
            answer.push_str(&format!("{name}: {}\r\n", value.as_str().expect("cases.json is of its form")));
        }
        stream.write_all(format!("{answer}\r\n{text}").as_bytes())
    }
}
