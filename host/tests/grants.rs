//! What workers may do: a real component tries, over a real socket.
//!
//! The component is `guests/grants`, built once a run by its `build.sh` (which
//! finds or makes a toolchain for it) and compiled once a test process.

// Each is a way to fail, in the functions that tests share as in the tests.
#![allow(clippy::unwrap_used)]

#[path = "grants/redis.rs"]
mod redis;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::oneshot;
use wharf_app::{Component, Grants, Limits, Manifest, Sha256, Site, Value, Worker};
use wharf_host::{App, AppError, AppSource, CodeCache, Compiler, CompilerTarget, Runtime, Server};

/// The component, compiled.
struct Guest {
    sha256: Sha256,
    size: u64,
    cache: CodeCache,
    compiler: Compiler,
    _folder: TempDir,
}

static GUEST: LazyLock<Guest> = LazyLock::new(|| {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests/grants/build.sh");
    let built = Command::new(script).arg(concat!(env!("CARGO_TARGET_TMPDIR"), "/guests")).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let wasm = String::from_utf8(built.stdout).unwrap();
    let wasm = Path::new(wasm.trim_end());
    let content = std::fs::read(wasm).unwrap();
    let sha256 = Sha256::of(&content);
    let folder = tempfile::tempdir().unwrap();
    let cache = CodeCache::new(folder.path().to_owned());
    let compiler = Compiler::new(CompilerTarget::Native).unwrap();
    cache.ensure(&compiler, &sha256, wasm).unwrap();
    Guest { sha256, size: content.len() as u64, cache, compiler, _folder: folder }
});

/// An app of the component with these grants.
fn app(grants: &str, env: &[(&str, Value)]) -> Manifest {
    let mut manifest = Manifest::new("test".into(), Site::default());
    manifest.components.push(Component {
        file: "workers/grants.wasm".into(),
        size: GUEST.size,
        sha256: GUEST.sha256,
        wasi: Default::default(),
    });
    manifest.workers.push(Worker {
        name: "grants".into(),
        pattern: "/[...path]".into(),
        source: "grants.wasm".into(),
        component: 0,
        abi: Default::default(),
        env: env.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
        grants: toml::from_str::<Grants>(grants).unwrap(),
        limits: Limits { timeout_ms: 120_000, ..Limits::default() },
        reuse: 1,
    });
    // Through the text, as an image has it.
    Manifest::parse(&manifest.to_json()).unwrap()
}

fn load(grants: &str, env: &[(&str, Value)]) -> Result<App, AppError> {
    let manifest = app(grants, env);
    let source = AppSource::live(
        std::path::PathBuf::new(),
        manifest,
        Vec::new(),
        GUEST.cache.code_dir(&GUEST.compiler),
    );
    App::load(&Runtime::new().unwrap(), source)
}

/// A server of the component with these grants, until it is dropped.
struct Served {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Served {
    fn with(grants: &str) -> Self {
        Self::app(load(grants, &[]).unwrap())
    }

    fn app(app: App) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, address) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = Server::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
                ready.send(server.address()).unwrap();
                let stop = async {
                    let _ = stopped.await;
                };
                server.serve(Arc::new(app), stop).await;
            });
        });
        Self { address: address.recv().unwrap(), stop: Some(stop), thread: Some(thread) }
    }

    fn ask(&self, target: &str) -> Result<String, String> {
        ask(self.address, target)
    }

    fn could(&self, target: &str) -> String {
        self.ask(target).unwrap_or_else(|error| panic!("{target}: {error}"))
    }

    fn could_not(&self, target: &str) -> String {
        self.ask(target).map_or_else(|error| error, |answer| panic!("{target}: {answer}"))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// What the worker says: `Ok` if it could.
fn ask(address: SocketAddr, target: &str) -> Result<String, String> {
    let (status, _, body) = get(address, target);
    match status {
        200 => Ok(body),
        500 => Err(body),
        other => panic!("{target}: status {other}: {body}"),
    }
}

/// Status, head and body, which is taken out of its chunks.
fn get(address: SocketAddr, target: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(180))).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, mut rest) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    if !head.to_lowercase().contains("transfer-encoding: chunked") {
        return (status, head.to_owned(), rest.to_owned());
    }
    let mut body = String::new();
    loop {
        let (length, after) = rest.split_once("\r\n").unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return (status, head.to_owned(), body);
        }
        body += &after[..length];
        rest = &after[length + 2..];
    }
}

/// A server that answers each request with what it was sent, or with a
/// redirect for `/redirect?URL`.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            let whole = |request: &[u8]| {
                let text = String::from_utf8_lossy(request);
                let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
                let chunked = text.to_lowercase().contains("transfer-encoding: chunked");
                body.is_some_and(|body| !chunked || body.ends_with("0\r\n\r\n"))
            };
            while !whole(&request) {
                match stream.read(&mut buffer).unwrap() {
                    0 => break,
                    length => request.extend(&buffer[..length]),
                }
            }
            let text = String::from_utf8(request).unwrap();
            let target = text.split(' ').nth(1).unwrap_or_default();
            let answer = match target.split_once("/redirect?") {
                Some((_, to)) => format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"),
                None => format!("HTTP/1.1 201 Created\r\ncontent-length: {}\r\n\r\n{text}", text.len()),
            };
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    address
}

fn quoted(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}

#[test]
fn a_worker_without_grants_has_nothing_but_clocks_randomness_and_the_log() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), "secret").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = Served::with("");
    assert_eq!(served.could("/env"), "");
    assert_eq!(served.could("/config?key=PATH"), "None");
    assert_eq!(served.could("/config/all"), "");
    for path in ["/", "/etc/passwd", ".", "..", "/proc/self/environ", &folder.path().display().to_string()] {
        served.could_not(&format!("/read?path={path}"));
        served.could_not(&format!("/list?path={path}"));
    }
    served.could_not(&format!("/write?path={}/new&text=x", folder.path().display()));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    served.could_not(&format!("/tcp?address={address}"));
    served.could_not("/listen");
    served.could_not(&format!("/udp?address={address}"));
    served.could_not("/resolve?name=localhost");
    assert!(served.could_not(&format!("/fetch?url=http://{address}/")).contains("HttpRequestDenied"));
    assert!(served.could_not("/kv/open?store=default").contains("AccessDenied"));
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nothing has connected");
}

#[test]
fn a_worker_with_other_grants_still_has_no_sockets() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = Served::with(&format!("outbound = ['http://{address}', 'http://localhost:*']"));
    served.could_not(&format!("/tcp?address={address}"));
    served.could_not(&format!("/udp?address={address}"));
    served.could_not("/listen");
    served.could_not("/resolve?name=localhost");
}

#[test]
fn variables_come_from_the_app_and_by_name_from_the_host() {
    // Of all that every test process has.
    let from_host = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let by_name: Value = serde_json::from_str(r#"{"from":"CARGO_MANIFEST_DIR"}"#).unwrap();
    let absent: Value = serde_json::from_str(r#"{"from":"WHARF_NO_SUCH","optional":true}"#).unwrap();
    let env = [("FIXED", Value::from("1")), ("HOST", by_name), ("NONE", absent)];
    let config = "config = { level = 'info', dir = { from = 'CARGO_MANIFEST_DIR' } }";
    let served = Served::app(load(config, &env).unwrap());
    assert_eq!(served.could("/env"), format!("FIXED=1\nHOST={from_host}"));
    assert_eq!(served.could("/config?key=level"), "Some(\"info\")");
    assert_eq!(served.could("/config/all"), format!("dir={from_host}\nlevel=info"));
    assert_eq!(served.could("/config?key=HOST"), "None");
    let missing: Value = serde_json::from_str(r#"{"from":"WHARF_NO_SUCH"}"#).unwrap();
    let error = load("", &[("X", missing)]).err().unwrap();
    assert_eq!(error.to_string(), "worker \"grants\" can't have env \"X\"");
    assert!(error.hint().unwrap().contains("WHARF_NO_SUCH"));
}

#[test]
fn a_mounted_folder_is_read_and_written_only_as_granted() {
    let (read, write) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(read.path().join("a.txt"), "hello").unwrap();
    std::fs::write(write.path().join("beside"), "").unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink(outside.path(), read.path().join("link")).unwrap();
    let served = Served::with(&format!(
        "mounts = [{{ host = {}, guest = '/ro' }}, {{ host = {}, guest = '/data/rw', write = true }}]",
        quoted(read.path()),
        quoted(write.path()),
    ));
    assert_eq!(served.could("/list?path=/ro"), "a.txt\nlink");
    assert_eq!(served.could("/read?path=/ro/a.txt"), "hello");
    served.could_not("/write?path=/ro/a.txt&text=x");
    served.could_not("/write?path=/ro/new&text=x");
    served.could_not("/remove?path=/ro/a.txt");
    assert_eq!(std::fs::read_to_string(read.path().join("a.txt")).unwrap(), "hello");
    served.could("/write?path=/data/rw/new.txt&text=written");
    assert_eq!(std::fs::read_to_string(write.path().join("new.txt")).unwrap(), "written");
    assert_eq!(served.could("/read?path=/data/rw/new.txt"), "written", "another instance sees it");
    served.could("/remove?path=/data/rw/new.txt");
    for path in [
        "/ro/../data/rw/beside",
        "/ro/link/secret",
        "/ro/../../etc/passwd",
        "/data/rw/../../etc/passwd",
        "/etc/passwd",
    ] {
        let outcome = served.ask(&format!("/read?path={path}"));
        assert_ne!(outcome.as_deref().unwrap_or_default(), "secret", "{path}");
        if path.contains("passwd") || path.contains("link") {
            assert!(outcome.is_err(), "{path}: {outcome:?}");
        }
    }
}

#[test]
fn outbound_requests_leave_as_granted_and_redirects_pass_by_themselves() {
    let (granted, other) = (echo(), echo());
    let served = Served::with(&format!("outbound = ['GET,POST http://{granted}']"));
    let answer = served.could(&format!("/fetch?url=http://{granted}/path%3Fq=1&header=X-Mine:1"));
    assert!(answer.starts_with("201\n"), "{answer}");
    assert!(answer.contains("GET /path?q=1 HTTP/1.1"), "{answer}");
    assert!(answer.to_lowercase().contains("x-mine: 1"), "{answer}");
    let answer = served.could(&format!("/fetch?method=POST&url=http://{granted}/&body=payload"));
    assert!(answer.contains("payload"), "{answer}");
    // The guest sees where a redirect leads, and may not go there.
    let answer = served.could(&format!("/fetch?url=http://{granted}/redirect%3Fhttp://{other}/"));
    assert!(
        answer.starts_with("302\n") && answer.contains(&format!("location: http://{other}/")),
        "{answer}"
    );
    for (target, expected) in [
        (format!("url=http://{other}/"), "HttpRequestDenied"),
        (format!("url=https://{granted}/"), "HttpRequestDenied"),
        (format!("url=http://localhost:{}/", granted.port()), "HttpRequestDenied"),
        (format!("url=http://[::ffff:7f00:1]:{}/", other.port()), "HttpRequestDenied"),
        (format!("method=DELETE&url=http://{granted}/"), "HttpRequestDenied"),
        (format!("method=CONNECT&url=http://{granted}/"), "HttpRequestMethodInvalid"),
        ("url=http://169.254.169.254/latest".into(), "HttpRequestDenied"),
        (format!("url=ftp://{granted}/"), "HttpProtocolError"),
        (format!("url=http://{granted}/&header=Host:evil"), "Forbidden"),
        (format!("url=http://{granted}/&header=Connection:close"), "Forbidden"),
    ] {
        let error = served.could_not(&format!("/fetch?{target}"));
        assert!(error.contains(expected), "{target}: {error}");
    }
}

#[test]
fn a_name_of_this_machine_is_not_reached_without_its_address() {
    let server = echo();
    let by_name = Served::with(&format!("outbound = ['http://localhost:{0}', 'http://*:*']", server.port()));
    let url = format!("/fetch?url=http://localhost:{}/", server.port());
    assert!(by_name.could_not(&url).contains("DestinationIpProhibited"));
    let both = format!("outbound = ['http://localhost:{0}', 'http://127.0.0.1:{0}']", server.port());
    assert!(Served::with(&both).could(&url).starts_with("201\n"));
}

#[test]
fn a_store_keeps_what_was_set_for_other_instances_and_later_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let grants = format!("kv = {{ default = {} }}", quoted(folder.path()));
    let served = Served::with(&grants);
    assert_eq!(served.could("/kv/get?key=a"), "none");
    served.could("/kv/set?key=a&value=1");
    assert_eq!(served.could("/kv/get?key=a&store=default"), "1");
    assert_eq!(served.could("/kv/exists?key=a"), "true");
    served.could("/kv/fill?key=k&count=2500");
    assert_eq!(served.could("/kv/list").lines().count(), 2501);
    assert_eq!(served.could("/kv/many?key=k0,unknown,k7"), "k0=0\nk7=7\nnone");
    served.could("/kv/delete-many?key=k0,k7");
    assert_eq!(served.could("/kv/list").lines().count(), 2499);
    assert!(served.could_not("/kv/open?store=other").contains("NoSuchStore"));
    assert!(served.could_not("/kv/get?key=").contains("key of 0 bytes"));
    assert!(served.could_not("/kv/large?key=l&length=26214401").contains("at most 26214400"));
    assert!(served.could_not("/kv/fill?key=k&count=10001").contains("at most 10000"));
    drop(served);
    assert_eq!(Served::with(&grants).could("/kv/get?key=a"), "1");
}

#[test]
fn increments_of_instances_and_hosts_are_all_counted() {
    let folder = tempfile::tempdir().unwrap();
    let grants = format!("kv = {{ default = {} }}", quoted(folder.path()));
    let hosts = [Served::with(&grants), Served::with(&grants)];
    thread::scope(|scope| {
        for host in hosts.iter().cycle().take(8) {
            scope.spawn(|| host.could("/kv/increment?key=n&delta=3&times=10"));
        }
    });
    assert_eq!(hosts[0].could("/kv/get?key=n"), "240");
    hosts[0].could("/kv/set?key=word&value=x");
    assert!(hosts[1].could_not("/kv/increment?key=word").contains("not a decimal number"));
}
